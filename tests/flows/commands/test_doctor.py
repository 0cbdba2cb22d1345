"""The command `doctor`: one line each, its exit status, and what it never says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from flows.commands import doctor
from taylor_ops.preflight.probed import Probed
from tests.support.commands import called_here

State = Literal["fine", "warning", "lacking"]


def of_state(state: State) -> Callable[[], Probed]:
    return lambda: Probed(
        what="disk", state=state, found=f"it is {state}", remedy=None if state == "fine" else "mend it"
    )


def probing(monkeypatch: pytest.MonkeyPatch, *states: State) -> None:
    """Have `doctor` look at things of these states."""
    asked = {f"thing {number}": (of_state(state), 60.0) for number, state in enumerate(states)}
    monkeypatch.setattr(doctor, "probes", lambda _artifacts: asked)


def test_each_thing_is_one_line_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, "fine", "warning")
    done = called_here("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["fine     disk      it is fine", "warning  disk      it is warning; mend it"]


def test_only_what_is_needed_and_lacks_changes_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, "lacking", "fine")
    done = called_here("doctor")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["lacking", "fine"]
    probing(monkeypatch, "warning", "warning")
    assert called_here("doctor").returncode == 0


def test_json_has_every_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    probing(monkeypatch, "fine", "lacking")
    done = called_here("doctor", "--json")
    assert done.returncode == 1
    found = [(one["state"], one["remedy"]) for one in json.loads(done.stdout)]
    assert found == [("fine", None), ("lacking", "mend it")]


def test_all_that_a_release_needs_is_looked_at_and_each_has_a_limit(tmp_path: Path) -> None:
    asked = doctor.probes(tmp_path)
    assert list(asked) == [
        *("Python", "torch", "disk", "cores", "compiler", "Hub", "token", "server", "pool", "worker"),
    ]
    assert all(0 < seconds <= 60 for _probe, seconds in asked.values())
    for what in ("Python", "disk", "cores", "compiler"):
        probe, _seconds = asked[what]
        assert probe().what == what
