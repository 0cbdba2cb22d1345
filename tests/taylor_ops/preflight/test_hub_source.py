"""The preflight of a source on the Hub, of which nothing but the config and the index is fetched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from huggingface_hub import ModelInfo
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.errors import BadInput
from taylor_ops.model.original import Original
from taylor_ops.preflight import known_source as places
from taylor_ops.preflight import preflight
from taylor_ops.source import hub
from tests.support.preflight_example import config_of, shown
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import Sample, silent

pytestmark = pytest.mark.usefixtures("clock_of_bytes")


class Usage(NamedTuple):
    """A disk that is full."""

    total: int = 10**9
    used: int = 10**9
    free: int = 1000


class Hub:
    """Stands in for the Hub: knows one source, and gives its config and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, gated: bool = False) -> None:
        self._folder, self._gated = folder, gated
        monkeypatch.setattr(hub, "HfApi", lambda: self)
        monkeypatch.setattr(hub, "hf_hub_download", self.give)
        monkeypatch.setattr(hub, "snapshot_download", self.nothing_cached)

    def model_info(self, repo_id: str, *, revision: str, files_metadata: bool) -> ModelInfo:
        paths = [path for path in self._folder.rglob("*") if path.is_file()]
        files = [{"rfilename": str(path.relative_to(self._folder)), "size": path.stat().st_size} for path in paths]
        about = {"gated": "manual", "private": False, "cardData": {"license": "llama3"}}
        return ModelInfo(id=repo_id, siblings=[*files, {"rfilename": "pytorch_model.bin", "size": 10**15}], **about)

    def give(self, _repo_id: str, name: str, *, revision: str, local_dir: Path) -> None:
        assert name in ("config.json", "model.safetensors.index.json")
        if self._gated:
            raise GatedRepoError("gated", response=httpx2.Response(403, request=httpx2.Request("GET", "https://hub")))
        local_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._folder / name, local_dir / name)

    def nothing_cached(self, *_arguments: Any, **options: Any) -> str:
        assert options["local_files_only"]
        raise LocalEntryNotFoundError("nothing")


def on_the_hub(sample: Sample, target: float, tolerance: float = 0.03) -> ReleaseConfig:
    source = {"kind": "hub", "repo_id": "owner/tiny", "revision": "0" * 40}
    return config_of(sample, source=source, latency={"target_slowdown": target, "tolerance": tolerance})


def test_of_a_source_on_the_hub_no_weight_is_fetched_and_what_bytes_tell_is_told(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, llama.original)
    found = preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)
    weights = sum(file.stat().st_size for file in llama.original.glob("*.safetensors"))
    assert (found.sample, found.cheapest, found.seconds) == (None, None, {})
    assert (found.neurons, found.read_bytes) == (96, weights)
    assert weights < found.to_fetch < 10**9
    text = shown(found)
    assert "gated, open to this account" in text
    assert "still to be fetched" in text
    assert "not known until the weights are fetched" in text


def test_weights_in_a_subfolder_of_a_repository_are_known_by_its_index(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(llama.original, tmp_path / "place")
    (place / "notes.txt").write_text("notes", encoding="utf-8")
    (place / "sub").mkdir()
    (place / "model.safetensors").rename(place / "sub" / "model.safetensors")
    names = Original(llama.original).checkpoint.names()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "sub/model.safetensors")}
    (place / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    Hub(monkeypatch, place)
    found = preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)
    assert found.read_bytes == (place / "sub" / "model.safetensors").stat().st_size
    assert found.to_fetch > found.read_bytes
    assert found.left == ("notes.txt", "pytorch_model.bin")
    here = preflight.preflight(config_of(Sample(**{**vars(llama), "original": place})), tmp_path, silent)
    assert (here.read_bytes, here.left) == (found.read_bytes, ("notes.txt",))
    (place / "sub" / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"^owner/tiny at 0{12}/model\.safetensors\.index\.json names sub/model"):
        preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)


def test_a_wrong_config_on_the_hub_is_named_by_its_repository(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = shutil.copytree(llama.original, tmp_path / "wrong")
    (wrong / "config.json").write_text('{"model_type": "swoosh"}', encoding="utf-8")
    Hub(monkeypatch, wrong)
    with pytest.raises(BadInput, match=r"^owner/tiny at 0{12}/config\.json: model type `swoosh`"):
        preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)


def test_of_a_source_on_the_hub_what_the_cache_has_is_not_fetched_again(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, llama.original)
    every = preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent).to_fetch
    cached = next(llama.original.glob("*.safetensors"))
    monkeypatch.setattr(
        places, "try_to_load_from_cache", lambda _repo, name, **_more: str(cached) if name == cached.name else None
    )
    found = preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)
    assert found.to_fetch == every - cached.stat().st_size
    monkeypatch.setattr(places, "try_to_load_from_cache", lambda *_given, **_more: str(cached))
    assert preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent).sample is None


def test_of_a_source_on_the_hub_an_order_that_is_fixed_is_that_of_every_plan(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, llama.original)
    config = on_the_hub(llama, 1.1, tolerance=0.5)
    fixed = config.conversion.model_copy(update={"order": 6, "min_protected": 0.3})
    found = preflight.preflight(config.model_copy(update={"conversion": fixed}), tmp_path, silent)
    assert found.mean_order == pytest.approx(6)
    assert found.protected < 1


@pytest.mark.parametrize("target", [1.01, 100.0])
def test_of_a_source_on_the_hub_a_target_that_bytes_rule_out_is_refused(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: float
) -> None:
    Hub(monkeypatch, llama.original)
    with pytest.raises(BadInput, match=r"cannot be reached: .* going by bytes alone"):
        preflight.preflight(on_the_hub(llama, target, tolerance=0.01), tmp_path, silent)


def test_of_a_source_on_the_hub_with_a_kinked_activation_one_plan_is_within_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Sample
) -> None:
    original = save_tiny_model(tmp_path / "original", "llama", hidden_act="relu")
    Hub(monkeypatch, original)
    with pytest.raises(BadInput, match=r"about (\d+\.\d\d) to \1 can") as caught:
        preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)
    assert "`relu` is exact at one order" in caught.value.remedy


def test_a_gated_source_without_access_is_refused(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, llama.original, gated=True)
    with pytest.raises(BadInput, match="gated and this account has no access"):
        preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)


def test_a_source_for_which_the_cache_of_the_hub_has_no_room_is_refused(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, llama.original)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage())
    with pytest.raises(BadInput, match="the Hub cache"):
        preflight.preflight(on_the_hub(llama, 6.0), tmp_path, silent)
