"""A licence that a source states comes from others, and is shown on a terminal: it does not steer it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelInfo

from taylor_ops.config.source import FolderSource
from taylor_ops.config_file.read import read
from taylor_ops.preflight.known_source import _access_and_licence, _stated_by_the_hub
from tests.support.config_example import VALID, written

EVIL = "mit\x1b]0;owned\x07"
SHOWN = "mit\\x1b]0;owned\\x07"


def test_a_licence_of_the_hub_does_not_steer_a_terminal() -> None:
    info = ModelInfo(id="org/tiny", private=False, gated=False, cardData={"license": EVIL}, tags=[], siblings=[])
    assert _stated_by_the_hub(info) == ("public", SHOWN)


def test_a_licence_of_a_card_does_not_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text('---\nlicense: "mit\\x1b]0;owned\\a"\n---\n')
    config = read(written(tmp_path, VALID)).config
    local = config.model_copy(update={"source": FolderSource(kind="folder", path=tmp_path)})
    assert _access_and_licence(local, tmp_path) == ("local files", SHOWN)
