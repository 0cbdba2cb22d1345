"""The first config of a model: what it says of each kind of source, that `check` takes it, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from huggingface_hub import ModelInfo
from huggingface_hub.errors import HFValidationError

from taylor_ops.config.source import FolderSource, GgufSource, HubSource
from taylor_ops.config_file.checked import checked
from taylor_ops.config_file.read import LoadedConfig, read
from taylor_ops.errors import BadInput
from taylor_ops.preflight import first_config as place
from taylor_ops.preflight.first_config import first_config, target_of
from tests.support.preflight_example import example
from tests.taylor_ops.conftest import Sample, silent

COMMIT = "89abcdef" * 5


def made(model: str | Path, folder: Path, probe: bool = False) -> tuple[str, LoadedConfig]:
    """The text of the first config of a model, and what the reader makes of it in a file."""
    text = first_config(str(model), folder, folder / "artifacts", silent, probe)
    path = folder / "first.yaml"
    path.write_text(text, encoding="utf-8")
    return text, read(path)


def commented(text: str, key: str) -> str:
    """The lines of comments right above a key, as one."""
    lines = [line.strip() for line in text.splitlines()]
    at = next(index for index, line in enumerate(lines) if line.startswith(f"{key}:"))
    comment: list[str] = []
    while lines[at - len(comment) - 1].startswith("#"):
        comment.insert(0, lines[at - len(comment) - 1].removeprefix("# "))
    return " ".join(comment)


class Hub:
    """Stands in for the Hub, which knows one repository and gives its config."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **about: Any) -> None:
        self.asked: list[str | None] = []
        self._about, self._folder = about, folder
        monkeypatch.setattr(place, "HfApi", lambda: self)
        monkeypatch.setattr(place, "fetch_file", self.give)

    def model_info(self, repo_id: str, *, revision: str | None) -> ModelInfo:
        self.asked.append(revision)
        return ModelInfo(id=repo_id, sha=COMMIT, **self._about)

    def give(self, source: HubSource, name: str, folder: Path) -> None:
        assert source.revision == COMMIT
        shutil.copyfile(self._folder / name, folder / name)


def test_a_model_on_the_hub_is_named_by_its_commit_with_its_licence_and_languages(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"gated": "manual", "cardData": {"license": "llama3", "language": ["en", "de"]}}
    hub = Hub(monkeypatch, llama.original, **about)
    text, loaded = made("Owner/Tiny-7B_Chat@v1.0", tmp_path)
    config = loaded.config
    assert hub.asked == ["v1.0"]
    assert config.source == HubSource(kind="hub", repo_id="Owner/Tiny-7B_Chat", revision=COMMIT)
    assert (config.name, config.version) == ("tiny-7b-chat-taylor", "1.0.0")
    assert (config.card.license, config.card.base_model) == ("llama3", "Owner/Tiny-7B_Chat")
    assert config.card.language == ("en", "de")
    assert (config.publish.target, config.publish.repo_id) == ("folder", "my-org/Tiny-7B_Chat-Taylor")
    assert commented(text, "source") == "Architecture llama, 2 layers, activation silu."
    assert "accept its licence on the Hub" in text
    assert "a commit" in commented(text, "revision").lower()
    Hub(monkeypatch, llama.original, gated=False)
    text, loaded = made("Owner/Tiny", tmp_path)
    assert "accept its licence" not in text
    assert loaded.config.card.license == "unknown"
    assert "states no licence" in commented(text, "license")


def test_a_model_in_a_folder_is_named_by_its_path_from_the_config(llama: Sample, tmp_path: Path) -> None:
    shutil.copytree(llama.original, tmp_path / "models" / "My Model")
    (tmp_path / "configs").mkdir()
    (tmp_path / "models" / "My Model" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    text, loaded = made(tmp_path / "models" / "My Model", tmp_path / "configs")
    assert "  path: ../models/My Model\n" in text
    source = loaded.config.source
    assert isinstance(source, FolderSource)
    assert source.path.resolve() == (tmp_path / "models" / "My Model").resolve()
    assert (loaded.config.name, loaded.config.card.license) == ("my-model-taylor", "mit")
    assert checked(tmp_path / "configs" / "first.yaml").missing == ()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_data_type_is_that_of_the_source(llama: Sample, tmp_path: Path, dtype: str) -> None:
    folder = shutil.copytree(llama.original, tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text("utf-8").replace('"float32"', f'"{dtype}"'), encoding="utf-8")
    assert made(folder, tmp_path)[1].config.conversion.dtype == dtype


def test_a_gguf_file_says_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "Tiny-00001-of-00001.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(30)
    writer.add_license("apache-2.0")
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    text, loaded = made(file, tmp_path)
    assert loaded.config.source == GgufSource(kind="gguf", file=file)
    assert (loaded.config.name, loaded.config.card.license) == ("tiny-taylor", "apache-2.0")
    assert loaded.config.conversion.dtype == "float32"
    assert commented(text, "source") == "Architecture llama, 30 layers."


def test_a_target_is_within_reach_of_the_probe(llama: Sample, tmp_path: Path, clock_of_bytes: None) -> None:
    text, loaded = made(llama.original, tmp_path, probe=True)
    target = loaded.config.latency.target_slowdown
    told = commented(text, "target_slowdown")
    low, high = (float(word) for word in told.partition("About ")[2].split()[0:3:2])
    cheapest = float(told.partition(", from ")[2].split()[0])
    assert low <= cheapest < target < high
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize(
    ("reachable", "cheapest", "target"),
    [
        ((1.5, 9.0), 2.0, 3.0),
        ((1.5, 30.0), 4.0, 5.0),
        ((1.5, 2.6), 2.0, 2.3),
        ((2.48, 2.52), 2.48, 2.48),
        ((1.001, 1.002), 1.001, 1.01),
        ((200.0, 400.0), 200.0, 100.0),
    ],
)
def test_the_target_is_the_usual_one_unless_another_protects_every_neuron(
    reachable: tuple[float, float], cheapest: float, target: float
) -> None:
    found = target_of(example(reachable=reachable, cheapest_slowdown=cheapest))
    assert found.slowdown == pytest.approx(target)
    assert "bytes" not in found.why
    assert "by bytes alone" in target_of(example(sample=None, reachable=reachable)).why


@pytest.mark.parametrize(
    ("card", "keys"),
    [
        ({"license": "Apache 2.0"}, {"license": "apache-2.0"}),
        ({"license": "Our Own"}, {"license": "other", "license_name": "Our Own", "license_link": "LICENSE"}),
        ({"license": ["mit", "bsd"]}, {"license": "other", "license_name": "mit, bsd", "license_link": "LICENSE"}),
        (
            {"license": "other", "license_name": "ours", "license_link": "https://example.org"},
            {"license": "other", "license_name": "ours", "license_link": "https://example.org"},
        ),
        ({"license": "mit"}, {"license": "mit"}),
        ({}, {"license": "unknown"}),
    ],
)
def test_every_licence_makes_a_card(card: dict[str, Any], keys: dict[str, str]) -> None:
    assert place._licence(card.get, "LICENSE")[0] == keys
    assert place._is_card(**keys)


def test_what_is_no_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"`not a model` is no folder, no GGUF file and no OWNER/NAME"):
        first_config("not a model", tmp_path, tmp_path, silent)
    (tmp_path / "notes.txt").write_text("not a model", encoding="utf-8")
    with pytest.raises(BadInput, match=r"notes.txt cannot be read as a GGUF file"):
        first_config(str(tmp_path / "notes.txt"), tmp_path, tmp_path, silent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"config.json cannot be read"):
        first_config(str(tmp_path / "empty"), tmp_path, tmp_path, silent)

    class Refusing:
        def model_info(self, repo_id: str, *, revision: str | None) -> ModelInfo:
            raise HFValidationError(repo_id)

    monkeypatch.setattr(place, "HfApi", Refusing)
    with pytest.raises(BadInput, match="`owner/tiny` is not the name of a repository") as refused:
        first_config("owner/tiny", tmp_path, tmp_path, silent)
    assert refused.value.remedy == "correct the name of the model"
