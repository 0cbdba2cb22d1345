"""A source is resolved and checked, or refused with the file, tensor or setting to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import hf_raise_for_status
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.source import FolderSource, GgufSource, HubSource
from taylor_ops.errors import BadInput
from taylor_ops.model.architectures import ARCHITECTURES
from taylor_ops.source import resolve as sources
from taylor_ops.source.files import copy_along
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.resolve import resolve, stamp
from taylor_ops.storage.files import sha256_of
from tests.support.tiny_models import save_tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = HubSource(kind="hub", repo_id="owner/tiny", revision=COMMIT)
GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that no test changes."""
    return save_tiny_model(tmp_path_factory.mktemp("source") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    """A tiny model to spoil."""
    return shutil.copytree(tiny, tmp_path / "copy")


def resolved(folder: Path) -> ResolvedSource:
    return resolve(FolderSource(kind="folder", path=folder), folder.parent / "work", lambda _done, _total: None)


def refused(source: HubSource | FolderSource | GgufSource | Path, work: Path) -> BadInput:
    """The error about a source, which ends with exit status 2 and is two lines long."""
    if isinstance(source, Path):
        source = FolderSource(kind="folder", path=source)
    with pytest.raises(BadInput) as caught:
        resolve(source, work, lambda _done, _total: None)
    assert caught.value.exit_status == 2
    assert len(str(caught.value).splitlines()) == 2
    return caught.value


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


# A folder


def test_a_folder_is_resolved_where_it_is(tiny: Path, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    found = resolve(
        FolderSource(kind="folder", path=tiny), tmp_path / "work", lambda done, total: reported.append((done, total))
    )
    tensors = load_file(tiny / "model.safetensors")
    assert found.folder == tiny
    assert found.folder.is_absolute()
    assert found.origin == "local folder tiny"
    assert found.model_type == "llama"
    assert found.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert found.sha256["model.safetensors"] == sha256_of(tiny / "model.safetensors")
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} < found.sha256.keys()
    assert len(reported) == len(tensors)
    assert reported == sorted(reported)
    assert reported[-1] == (found.parameters, found.parameters)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_every_known_architecture_is_resolved(tmp_path: Path, model_type: str) -> None:
    assert resolved(save_tiny_model(tmp_path / "tiny", model_type)).model_type == model_type


def test_a_checkpoint_with_tied_embeddings_needs_no_output_layer(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert resolved(folder).parameters > 0


def test_a_checkpoint_without_tied_embeddings_needs_its_output_layer(copy: Path, tmp_path: Path) -> None:
    change_tensors(copy, lambda tensors: tensors.pop("lm_head.weight"))
    assert "tensor lm_head.weight is missing" in refused(copy, tmp_path).cause


def test_the_same_files_in_another_folder_are_the_same_source(tiny: Path, copy: Path) -> None:
    assert resolved(tiny).identity() == resolved(copy).identity()
    assert resolved(tiny) != resolved(copy)
    assert str(tiny.parent) not in json.dumps(resolved(tiny).identity())


def test_other_weights_or_another_tokenizer_are_another_source(tiny: Path, copy: Path) -> None:
    before = resolved(copy).identity()
    change_tensors(copy, lambda tensors: tensors[GATE].mul_(-1))
    other_weights = resolved(copy).identity()
    (copy / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    other_template = resolved(copy).identity()
    assert before != other_weights != other_template
    assert before == resolved(tiny).identity()


def test_files_that_a_release_does_not_read_are_not_part_of_the_source(copy: Path, tmp_path: Path) -> None:
    before = resolved(copy)
    for name in ("README.md", "training_args.bin", "optimizer.pt", "trainer_state.json", ".gitattributes", "x.png"):
        (copy / name).write_bytes(b"anything")
    assert resolved(copy) == before
    (tmp_path / "target").mkdir()
    copy_along(copy, tmp_path / "target")
    assert {path.name for path in (tmp_path / "target").iterdir()} == before.sha256.keys() - {
        "config.json",
        "model.safetensors",
    }


def test_the_stamp_of_a_folder_changes_with_its_files_and_that_of_a_commit_never(copy: Path) -> None:
    source = FolderSource(kind="folder", path=copy)
    before = stamp(source)
    assert before == resolved(copy).sha256
    change_config(copy, rope_theta=5.0)
    assert stamp(source) != before
    assert stamp(HUB) == {}
    assert stamp(FolderSource(kind="folder", path=copy / "not-there")) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_that_is_not_finite_is_found_and_its_tensor_named(copy: Path, tmp_path: Path, value: float) -> None:
    change_tensors(copy, lambda tensors: tensors[GATE].view(-1)[-1:].fill_(value))
    assert f"tensor {GATE} holds NaN or infinite values" in refused(copy, tmp_path).cause


def test_a_value_too_large_for_another_type_is_finite_in_its_own(copy: Path) -> None:
    change_tensors(copy, lambda tensors: tensors[GATE].view(-1)[-1:].fill_(1e38))
    assert resolved(copy).model_type == "llama"


def test_a_missing_tensor_is_named(copy: Path, tmp_path: Path) -> None:
    change_tensors(copy, lambda tensors: tensors.pop(GATE))
    assert f"tensor {GATE} is missing" in refused(copy, tmp_path).cause


def test_a_tensor_of_another_shape_is_named_with_both_shapes(copy: Path, tmp_path: Path) -> None:
    change_tensors(copy, lambda tensors: tensors.update({GATE: torch.zeros(47, 32)}))
    assert f"tensor {GATE} has shape (47, 32), its config asks for (48, 32)" in refused(copy, tmp_path).cause


def test_a_config_that_asks_for_more_layers_than_there_are_names_a_missing_tensor(copy: Path, tmp_path: Path) -> None:
    change_config(copy, num_hidden_layers=3)
    assert "tensor model.layers.2." in refused(copy, tmp_path).cause


def test_an_architecture_that_is_not_known_is_named_with_those_that_are(tmp_path: Path) -> None:
    error = refused(save_tiny_model(tmp_path / "bloom", "bloom", n_layer=2, n_head=4), tmp_path)
    assert error.cause == f"architecture `bloom` is not known; known are {', '.join(sorted(ARCHITECTURES))}"
    assert "taylor_ops/model/architectures.py" in error.remedy


def test_a_model_type_that_transformers_does_not_know_is_named(copy: Path, tmp_path: Path) -> None:
    change_config(copy, model_type="made_up", auto_map={"AutoConfig": "modeling.Config"})
    error = refused(copy, tmp_path)
    assert "model type `made_up`" in error.cause
    assert "part of transformers" in error.remedy


def test_an_activation_that_is_not_known_is_named_with_those_that_are(copy: Path, tmp_path: Path) -> None:
    change_config(copy, hidden_act="tanh")
    error = refused(copy, tmp_path)
    assert "activation `tanh` is not known; known are gelu," in error.cause
    assert "taylor_ops/series/activations.py" in error.remedy


def test_a_missing_config_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").unlink()
    assert f"{copy / 'config.json'} cannot be read" in refused(copy, tmp_path).cause


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "version https://git-lfs.github.com/spec/v1\n", "{}"])
def test_a_config_that_is_none_is_named(copy: Path, tmp_path: Path, text: str) -> None:
    (copy / "config.json").write_text(text, encoding="utf-8")
    assert str(copy / "config.json") in refused(copy, tmp_path).cause


@pytest.mark.parametrize("change", [{"hidden_size": "large"}, {"num_attention_heads": 5}, {"hidden_act": None}])
def test_a_config_that_transformers_refuses_is_named(copy: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    change_config(copy, **change)
    assert str(copy / "config.json") in refused(copy, tmp_path).cause


def test_a_quantised_checkpoint_is_refused(copy: Path, tmp_path: Path) -> None:
    change_config(copy, quantization_config={"quant_method": "gptq", "bits": 4})
    error = refused(copy, tmp_path)
    assert "the checkpoint is quantised" in error.cause
    assert "unquantised" in error.remedy


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path / "nowhere", tmp_path)
    assert error.cause == f"source folder {tmp_path / 'nowhere'} does not exist"
    assert "`source.path`" in error.remedy


def test_a_pickle_checkpoint_is_refused_by_name(copy: Path, tmp_path: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert "pytorch_model.bin" in refused(copy, tmp_path).cause


def test_a_source_without_a_tokenizer_is_refused_before_any_work(copy: Path, tmp_path: Path) -> None:
    for path in copy.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in refused(copy, tmp_path).cause


# The Hub


def hub_error(status: int, **headers: str) -> HfHubHTTPError:
    """The error that huggingface_hub makes of an answer of the Hub."""
    request = httpx2.Request("GET", f"https://huggingface.co/api/models/owner/tiny/revision/{COMMIT}")
    answer = httpx2.Response(status, request=request, headers=headers, json={"error": "as the Hub words it"})
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(answer)
    return caught.value


def hub_raises(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(*_arguments: Any, **_options: Any) -> str:
        raise error

    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)


@pytest.mark.parametrize(
    ("status", "code", "cause", "remedy"),
    [
        (403, "GatedRepo", "is gated and this account has no access", "accept its terms on the Hub, then set HF_TOKEN"),
        (401, "GatedRepo", "is gated and this account has no access", "accept its terms on the Hub, then set HF_TOKEN"),
        (404, "RepoNotFound", "does not exist, or is private", "correct `source`, or set HF_TOKEN"),
        (500, "", "cannot be fetched: HfHubHTTPError", "check the network"),
    ],
)
def test_an_answer_of_the_hub_becomes_cause_and_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, code: str, cause: str, remedy: str
) -> None:
    hub_raises(monkeypatch, hub_error(status, **{"X-Error-Code": code}))
    error = refused(HUB, tmp_path)
    assert error.cause.startswith(f"owner/tiny at {COMMIT[:12]} {cause}")
    assert remedy in error.remedy


def test_a_commit_that_the_repository_does_not_have_is_no_trouble_of_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_raises(monkeypatch, hub_error(404, **{"X-Error-Code": "RevisionNotFound"}))
    error = refused(HUB, tmp_path)
    assert COMMIT[:12] in error.cause
    assert "network" not in error.remedy
    assert "revision" in error.remedy


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder.\nCheck your connection."),
        ConnectionError("refused"),
        OSError(),
        httpx2.ProxyError("407 Proxy Authentication Required"),
        httpx2.ReadTimeout("The read operation timed out"),
        httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_network_that_fails_is_named_with_what_to_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    hub_raises(monkeypatch, error)
    told = refused(HUB, tmp_path)
    assert f"owner/tiny at {COMMIT[:12]} cannot be fetched: {type(error).__name__}" in told.cause
    assert "HF_HUB_OFFLINE" in told.remedy


def test_a_name_that_no_hub_repository_can_have_is_refused_without_asking() -> None:
    with pytest.raises(ValidationError, match=r"a name that the Hub refuses: .*owner/tiny--model"):
        HubSource(kind="hub", repo_id="owner/tiny--model", revision=COMMIT)


def test_a_hub_source_is_fetched_at_its_commit_and_stays_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def snapshot_download(repo_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision))
        assert not any(Path(pickle).match(one) for one in allow_patterns for pickle in ("pytorch_model.bin", "run.py"))
        return str(tiny)

    monkeypatch.setattr(sources, "snapshot_download", snapshot_download)
    found = resolve(HUB, tmp_path / "work", lambda _done, _total: None)
    assert asked == [("owner/tiny", COMMIT)]
    assert found.origin == f"https://huggingface.co/owner/tiny at {COMMIT}"
    assert found.folder == tiny
    assert found.identity() == resolved(tiny).identity()
