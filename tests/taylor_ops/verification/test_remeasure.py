"""A slowdown that is measured again: as stated, not as stated, or not to be told."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.commands.tables import remeasured_table
from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config.latency import Latency
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.latency import timing
from taylor_ops.latency.judging import timed_pairs
from taylor_ops.machine import devices as devices_room
from taylor_ops.storage.files import canonical_json, read_json, sha256_of, sha256_of_tree, write_text
from taylor_ops.verification import remeasure as remeasuring
from taylor_ops.verification.apart import remeasured_apart
from taylor_ops.verification.record import Remeasured
from taylor_ops.verification.remeasure import remeasure
from tests.support.clocks import of_each, restless
from tests.support.commands import called_here
from tests.taylor_ops.conftest import CPU, Sample, silent

TRUE = 4.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the clock: a bundle takes four times as long as an original."""

    def decode_seconds(model: Any, _behind: timing.Behind, new_tokens: int) -> float:
        return new_tokens * (TRUE if type(model).__name__.startswith("Taylor") else 1.0)

    monkeypatch.setattr(timing, "decode_seconds", of_each(decode_seconds))


def manifest_of(sample: Sample, target: float) -> dict[str, Any]:
    stated = {"target": target, "tolerance": 0.03, "device": devices_room.device_description(CPU), "layers": 2}
    return {
        "format": 1,
        "files": {},
        "source": {"origin": "local folder", "sha256": sha256_of_tree(sample.original)},
        "exactness": {"dtype": "float32", "data_sets": []},
        "slowdown": stated | {"batch_size": 1, "prompt_tokens": 4, "new_tokens": 5},
    }


def again(
    sample: Sample,
    tmp_path: Path,
    target: float = TRUE,
    original: Path | None = None,
    max_pairs: int | None = None,
    **changes: Any,
) -> Remeasured:
    bundle = shutil.copytree(sample.converted, tmp_path / "bundle")
    write_text(bundle / MANIFEST, canonical_json(manifest_of(sample, target) | changes))
    return remeasure(bundle, original or sample.original, CPU, 0, silent, max_pairs)


@pytest.mark.parametrize(("target", "as_stated"), [(4.0, True), (4.1, True), (4.2, False), (3.5, False)])
def test_a_slowdown_is_as_stated_within_the_tolerance_of_the_manifest(
    llama: Sample, tmp_path: Path, target: float, as_stated: bool
) -> None:
    found = again(llama, tmp_path, target)
    assert found.slowdown == TRUE
    assert found.as_stated == as_stated
    assert (found.stated_for, found.new_tokens) == (found.device, 5)
    assert set(found.seconds_original) == {5.0}
    cells = [str(cell) for column in remeasured_table(found).columns for cell in column.cells]
    assert ("yes" if as_stated else "no") in cells


@pytest.mark.parametrize(("spread", "settled"), [(0.0, True), (0.5, False)])
def test_a_device_for_which_nothing_is_stated_is_held_to_nothing(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: float, settled: bool
) -> None:
    ratios = restless(1.6, spread)
    monkeypatch.setattr(remeasuring, "pairs_of", lambda *_given: lambda: (1.0, next(ratios)))
    stated = manifest_of(llama, TRUE)["slowdown"] | {"device": "Example GPU"}
    # To look at all pairs after each takes half a minute for the 600 of the default, which is tested below.
    found = again(llama, tmp_path, slowdown=stated, max_pairs=99)
    assert found.slowdown == pytest.approx(1.6, rel=0.2)
    assert (found.as_stated, found.settled, found.stated_for) == (None, settled, "Example GPU")
    assert len(found.seconds_bundle) == (7 if settled else 99)
    cells = [str(cell) for column in remeasured_table(found).columns for cell in column.cells]
    assert "nothing is stated for this device" in cells
    assert any("too noisy" in cell for cell in cells) != settled


@pytest.mark.parametrize(
    ("target", "tolerance", "as_stated"), [(4.2, 0.1, True), (4.2, 0.03, False), (2.0, 0.1, False)]
)
def test_a_device_that_has_a_target_of_its_own_is_held_to_that(
    llama: Sample, tmp_path: Path, target: float, tolerance: float, as_stated: bool
) -> None:
    here = devices_room.device_description(CPU)
    devices = [
        {"device": "Another GPU", "target": 9.0, "tolerance": 0.1},
        {"device": here, "target": target, "tolerance": tolerance},
    ]
    stated = manifest_of(llama, 3.0)["slowdown"] | {"device": "Example GPU", "devices": devices}
    found = again(llama, tmp_path, slowdown=stated)
    assert (found.target, found.tolerance, found.stated_for) == (target, tolerance, here)
    assert found.as_stated == as_stated
    cells = [str(cell) for column in remeasured_table(found).columns for cell in column.cells]
    assert not any("nothing is stated" in cell for cell in cells)
    shutil.rmtree(tmp_path / "bundle")
    # The device on which the plan was chosen is held to the target of the release.
    both = again(llama, tmp_path, slowdown=stated | {"device": here, "target": TRUE})
    assert (both.target, both.as_stated) == (TRUE, True)


@pytest.mark.parametrize(("middle", "spread", "pairs"), [(TRUE, 0.5, 106), (TRUE * 1.03, 0.003, 600)])
def test_what_the_samples_do_not_tell_is_neither(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, middle: float, spread: float, pairs: int
) -> None:
    ratios = restless(middle, spread)
    monkeypatch.setattr(remeasuring, "pairs_of", lambda *_given: lambda: (1.0, next(ratios)))
    with pytest.raises(WorkFailed, match=f"{pairs} pairs do not decide whether the slowdown is 4 within 3%"):
        again(llama, tmp_path)


@pytest.mark.parametrize("changed", ["model.safetensors", "config.json", "tokenizer.json"])
def test_another_original_is_refused_with_the_file_that_differs(llama: Sample, tmp_path: Path, changed: str) -> None:
    other = shutil.copytree(llama.original, tmp_path / "other")
    content = bytearray((other / changed).read_bytes())
    content[-1] ^= 1
    (other / changed).write_bytes(content)
    with pytest.raises(BadInput, match=f"other/{changed} does not have the bytes of the original") as caught:
        again(llama, tmp_path, original=other)
    assert "`source` in its manifest" in caught.value.remedy


def test_an_original_with_fewer_or_more_files_is_another_one(llama: Sample, tmp_path: Path) -> None:
    other = shutil.copytree(llama.original, tmp_path / "other")
    (other / "README.md").write_text("no release reads this")
    shutil.copyfile(other / "model.safetensors", other / "no-loader-reads-this.safetensors")
    assert again(llama, tmp_path, original=other).as_stated
    shutil.rmtree(tmp_path / "bundle")
    (other / "config.json").unlink()
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        again(llama, tmp_path, original=other)


def test_weights_that_a_loader_would_read_in_place_of_those_of_the_original_are_refused(
    llama: Sample, tmp_path: Path
) -> None:
    other = shutil.copytree(llama.original, tmp_path / "other")
    made_of_shards = {"config.json": sha256_of(other / "config.json")}
    with pytest.raises(BadInput, match=r"model\.safetensors is not part of the original"):
        remeasuring.require_its_original(other, made_of_shards)


def test_a_manifest_without_a_slowdown_is_refused_with_what_it_lacks(llama: Sample, tmp_path: Path) -> None:
    stated = manifest_of(llama, TRUE)["slowdown"]
    for lacking, places in (
        ({"slowdown": None}, "slowdown"),
        ({"slowdown": {**stated, "target": "fast", "batch_size": 0}}, r"slowdown\.batch_size, slowdown\.target"),
        ({"source": {}, "exactness": {"dtype": "int8"}}, r"exactness\.dtype, source\.sha256"),
    ):
        with pytest.raises(BadInput, match=f"does not state what a new measurement needs: {places}\n"):
            again(llama, tmp_path, **lacking)
        shutil.rmtree(tmp_path / "bundle")


def test_what_memory_does_not_hold_is_not_timed(llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = llama.record.bytes + llama.record.original_bytes
    monkeypatch.setattr(devices_room, "free_memory", lambda _device: int(0.7 * needed / devices_room._ROOM))
    with pytest.raises(BadInput, match="reading the disk would be timed"):
        again(llama, tmp_path)


def test_pairs_are_taken_until_they_settle_the_slowdown_or_there_are_too_many() -> None:
    settings = Latency(tolerance=0.03, pairs=11, max_pairs=99)
    few, _, settled = timed_pairs(lambda: (1.0, 4.0), settings)
    assert (len(few), settled) == (11, True)
    uneasy, wild = restless(4.0, 0.03), restless(4.0, 0.3)
    some, _, settled = timed_pairs(lambda: (1.0, next(uneasy)), settings)
    assert 11 < len(some) < 99
    assert settled
    most, _, settled = timed_pairs(lambda: (1.0, next(wild)), settings)
    assert (len(most), settled) == (99, False)


# The command, which measures a bundle of others in a process of its own


def measured_by_command(
    sample: Sample, tmp_path: Path, spoil: Callable[[Path], object], *options: str, rehash: bool = True
) -> subprocess.CompletedProcess[str]:
    """`calibrate` on a bundle whose manifest states another device, so that a few pairs are enough."""
    bundle = shutil.copytree(sample.converted, tmp_path / "bundle")
    listed = sha256_of_tree(bundle)
    spoil(bundle)
    manifest = manifest_of(sample, TRUE) | {"files": sha256_of_tree(bundle) if rehash else listed}
    manifest["exactness"] |= {"continuations": []}
    manifest["slowdown"] |= {"device": "Example GPU"}
    write_text(bundle / MANIFEST, canonical_json(manifest))
    original = str(sample.original)
    return called_here(
        "calibrate", str(bundle), "--original", original, "--max-pairs", "11", "--device", "cpu", *options
    )


def spy_on(place: Path) -> Callable[[Path], object]:
    """Adds code to a bundle that writes the environment in which it runs."""

    def spoil(bundle: Path) -> None:
        file = bundle / "modeling_taylor.py"
        code = f"import os, json\njson.dump(dict(os.environ), open({str(place)!r}, 'w'))\n"
        file.write_text(file.read_text() + code)

    return spoil


@pytest.mark.parametrize(
    ("rehash", "options", "says"),
    [
        (False, ["--trust-code"], "does not have the bytes that the manifest lists"),
        (True, [], "is not of a known version of this project"),
    ],
)
def test_the_command_runs_no_code_that_nothing_vouches_for(
    llama: Sample, tmp_path: Path, rehash: bool, options: list[str], says: str
) -> None:
    done = measured_by_command(llama, tmp_path, spy_on(tmp_path / "seen.json"), *options, rehash=rehash)
    assert done.returncode == 1
    assert says in done.stderr
    assert not (tmp_path / "seen.json").exists()


def test_the_command_runs_code_that_is_vouched_for_without_token_and_home(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "correct-horse-battery")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "correct-horse-battery")
    done = measured_by_command(llama, tmp_path, spy_on(tmp_path / "seen.json"), "--trust-code")
    assert (done.returncode, "Example GPU" in done.stdout) == (0, True), done.stderr
    seen = read_json(tmp_path / "seen.json")
    assert "correct-horse-battery" not in str(seen)
    assert seen["HOME"] != str(Path.home())


def test_what_the_process_of_the_command_refuses_is_told_as_here(llama: Sample, tmp_path: Path) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    with pytest.raises(BadInput, match=r"taylor_release.json cannot be read"):
        remeasured_apart(bundle, llama.original, "cpu", None)
