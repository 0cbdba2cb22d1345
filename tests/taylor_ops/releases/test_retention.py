"""What `clean` removes, and what it never touches: published releases, and what a run still needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from taylor_ops.publishing.record import Published
from taylor_ops.releases.index import note_published
from taylor_ops.releases.retention import clean
from taylor_ops.releases.waiting import note_that_it_goes_on, note_that_it_waits
from taylor_ops.storage.artifacts import ReleaseFolder
from taylor_ops.storage.files import canonical_json, sha256_of_tree, write_text
from tests.taylor_ops.releases.test_index import said


def run(artifacts: Path, name: str, version: str, age: int) -> Path:
    """The folder of a run that assembled a bundle and did not come further."""
    folder = artifacts / name / version
    manifest = {"config": {"publish": {"repo_id": f"org/{name}"}}}
    write_text(folder / "bundle" / "taylor_release.json", canonical_json(manifest))
    write_text(folder / "bundle" / "model.safetensors", "weights" * 100)
    os.utime(folder, (1e9 - age, 1e9 - age))
    return folder


def cache(artifacts: Path, name: str, age: int) -> Path:
    """The stages of a release that was worked on so long ago."""
    stages = artifacts / name / "stages"
    write_text(stages / "capture" / "ranges.safetensors", "ranges" * 100)
    write_text(stages / "capture.json", "{}")
    os.utime(stages / "capture.json", (1e9 - age, 1e9 - age))
    return stages


def test_of_each_release_the_newest_unpublished_runs_stay(tmp_path: Path) -> None:
    # The newest is not the one with the highest version.
    ages = {"1.0.0": 10, "1.1.0": 40, "1.2.0": 30, "1.3.0": 20}
    folders = {version: run(tmp_path, "a", version, age) for version, age in ages.items()}
    other = run(tmp_path, "b", "0.1.0", 90)
    found = clean(tmp_path, 2)
    assert found.removed == ("a/1.2.0", "a/1.1.0")
    assert found.bytes > 2 * 700
    assert [version for version, folder in folders.items() if folder.exists()] == ["1.0.0", "1.3.0"]
    assert other.exists()


def test_what_was_published_is_never_removed_however_it_is_known(tmp_path: Path) -> None:
    finished, noted, copied, gone = (run(tmp_path, "a", f"1.{n}.0", n) for n in range(4))
    write_text(finished / "release.json", "a record that today's software cannot read")
    published = Published(target="hub", repo_id="org/a", version="1.1.0", path="", unchanged=False)
    note_published(noted, published)
    write_text(tmp_path / "hub" / "org" / "a" / "1.2.0" / "model.safetensors", "weights")
    before = sha256_of_tree(tmp_path / "hub")
    assert clean(tmp_path, 0).removed == ("a/1.3.0",)
    assert [folder.exists() for folder in (finished, noted, copied, gone)] == [True, True, True, False]
    assert sha256_of_tree(tmp_path / "hub") == before


def test_caches_stay_of_the_releases_that_were_worked_on_last(tmp_path: Path) -> None:
    caches = {name: cache(tmp_path, name, age) for name, age in {"a": 30, "b": 10, "c": 20}.items()}
    assert clean(tmp_path, 2).removed == ("a/stages",)
    assert {name: stages.exists() for name, stages in caches.items()} == {"a": False, "b": True, "c": True}


def test_a_release_that_a_run_is_at_work_on_is_left_alone(tmp_path: Path) -> None:
    stages, folder = cache(tmp_path, "a", 1), run(tmp_path, "a", "1.0.0", 1)
    with ReleaseFolder(tmp_path / "a").lock():
        found = clean(tmp_path, 0)
        assert (found.removed, found.busy) == ((), ("a",))
        assert stages.exists()
        assert folder.exists()
    assert set(clean(tmp_path, 0).removed) == {"a/1.0.0", "a/stages"}


def test_a_release_that_waits_for_approval_is_left_alone_until_it_has_an_answer(tmp_path: Path) -> None:
    stages, place = cache(tmp_path, "a", 1), ReleaseFolder(tmp_path / "a")
    note_that_it_waits(place, "a-flow-run", "a server")
    found = clean(tmp_path, 0)
    assert (found.removed, found.busy) == ((), ("a",))
    assert stages.exists()
    note_that_it_goes_on(place, "another-flow-run")
    assert clean(tmp_path, 0).busy == ("a",)
    note_that_it_goes_on(place, "a-flow-run")
    assert clean(tmp_path, 0).removed == ("a/stages",)


@pytest.mark.parametrize("keep", ["3", "0"])
def test_the_command_says_what_goes_and_a_dry_run_removes_nothing(tmp_path: Path, keep: str) -> None:
    for number in range(5):
        run(tmp_path, "a", f"1.{number}.0", number)
    (tmp_path / "a" / ".lock").touch()  # any run leaves it
    before = sha256_of_tree(tmp_path)
    expected = [f"would remove a/1.{number}.0" for number in range(int(keep), 5)]
    lines = said("clean", "--keep", keep, "--artifacts", tmp_path, "--dry-run").splitlines()
    assert lines[:-1] == expected
    assert sha256_of_tree(tmp_path) == before
    found = json.loads(said("clean", "--keep", keep, "--artifacts", tmp_path, "--json"))
    assert found["removed"] == [f"a/1.{number}.0" for number in range(int(keep), 5)]
    assert not any((tmp_path / path).exists() for path in found["removed"])


def test_a_second_clean_finds_nothing(tmp_path: Path) -> None:
    for number in range(5):
        run(tmp_path, "a", f"1.{number}.0", number)
    clean(tmp_path, 3)
    assert clean(tmp_path, 3).removed == ()


def test_publications_of_an_owner_called_stages_are_no_caches(tmp_path: Path) -> None:
    place = tmp_path / "hub" / "stages" / "tiny" / "1.0.0"
    place.mkdir(parents=True)
    assert clean(tmp_path, keep=0).removed == ()
    assert place.is_dir()
