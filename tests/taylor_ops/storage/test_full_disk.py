"""A conversion onto a disk that is really full says what was needed and what there was, and nothing else changes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from taylor_ops.conversion import parts
from taylor_ops.storage.files import sha256_of_tree
from tests.support import full_disk
from tests.taylor_ops.conftest import Sample, sample

ROOT = Path(__file__).parents[3]
PRIVATE = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
MOUNTED = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'

Attempt = Callable[[int, int | None], dict[str, Any]]


def on_a_small_disk(private: Sequence[str], size: int, place: Path, *command: str, given: str = "") -> Any:
    """Run a command that alone sees a disk of so many bytes in `place`."""
    return subprocess.run(
        [*private, "sh", "-c", MOUNTED, "sh", str(size), str(place), *command],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A model of a few megabytes."""
    return sample(tmp_path_factory.mktemp("model"), "llama", intermediate_size=512)


@pytest.fixture
def attempt(model: Sample, tmp_path: Path) -> Attempt:
    """Convert the model on a disk of so many bytes, of which so many are left once its first part is written."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        tried = [(private, on_a_small_disk(private, 1 << 20, place, "true")) for private in PRIVATE]
    except FileNotFoundError as error:
        pytest.skip(f"no disk can be mounted here: there is no {error.filename}")
    private = next((private for private, ended in tried if ended.returncode == 0), None)
    if private is None:
        pytest.skip(f"no disk can be mounted here: {tried[-1][1].stderr.strip()}")
    model.plan.write(tmp_path / "plan.json")

    def attempted(size: int, left: int | None) -> dict[str, Any]:
        request = {
            "original": str(model.original),
            "ranges": str(model.ranges),
            "plan": str(tmp_path / "plan.json"),
            "conversion": model.conversion.model_dump(mode="json"),
            "disk": str(place),
            "left": left,
        }
        command = sys.executable, full_disk.__file__
        ended = on_a_small_disk(private, size, place, *command, given=json.dumps(request))
        assert ended.returncode == 0, ended.stderr
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    return attempted


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(model: Sample, attempt: Attempt) -> None:
    told = attempt(model.record.bytes // 2, None)
    said = re.search(r"about (\S+) MB are needed, (\S+) MB are free", told["cause"])
    assert said is not None
    needed, free = map(float, said.groups())
    assert needed == pytest.approx(model.record.bytes / 1e6, rel=0.1)
    assert free == pytest.approx(needed / 2, abs=0.2)
    assert "--artifacts" in told["remedy"]
    assert told["after"] == told["before"]


def test_a_disk_that_another_program_fills_meanwhile_ends_a_conversion_that_then_goes_on(
    model: Sample, attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = attempt(2 * model.record.bytes, 200_000)
    said = re.search(r"No space left on device \(about (\S+) MB needed, 0\.2 MB free\)", told["cause"])
    assert said is not None
    assert float(said[1]) == pytest.approx(model.record.bytes / 2e6, rel=0.2)
    assert "--artifacts" in told["remedy"]
    earlier = {name: sha256 for name, sha256 in told["after"].items() if not name.startswith(("kept/", "filler"))}
    assert earlier == told["before"]
    assert not any(name.startswith("kept/.") for name in told["after"])
    assert told["then"] == {}
    monkeypatch.setattr(parts, "_PART_VALUES", 0)
    model.again(tmp_path / "undisturbed")
    assert told["converted"] == sha256_of_tree(tmp_path / "undisturbed")
