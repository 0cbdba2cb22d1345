"""What `doctor` finds on this machine and on the Hub, with everything that may lack."""

from __future__ import annotations

import builtins
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from taylor_ops.preflight import this_machine
from taylor_ops.preflight.probed import Probed

SECRET = "hf_" + "q" * 30


class Usage(NamedTuple):
    """A disk."""

    total: int
    used: int
    free: int


def lacks(found: Probed, state: str, *words: str) -> None:
    """Hold that something lacks, that these words say what, and that there is a remedy."""
    assert found.state == state, found
    assert all(word in found.found for word in words), found
    assert found.remedy


# Python, torch, disk, cores, compiler


def test_python_is_held_against_what_the_package_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_machine.python().state == "fine"
    monkeypatch.setattr(this_machine.platform, "python_version", lambda: "3.10.4")
    lacks(this_machine.python(), "lacking", "3.10.4")


def test_torch_is_named_with_its_device() -> None:
    import torch

    found = this_machine.torch()
    assert torch.__version__ in found.found
    assert "threads" in found.found or torch.cuda.is_available()


def test_a_torch_that_cannot_be_loaded_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def broken(name: str, *more: Any) -> Any:
        if name == "torch":
            raise ImportError("libcudart.so.13: cannot open shared object file")
        return load(name, *more)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = this_machine.torch()
    monkeypatch.undo()
    lacks(found, "lacking", "libcudart.so.13")


def test_a_gpu_that_torch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(this_machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    lacks(this_machine.torch(), "warning", "there is a GPU")
    monkeypatch.setattr(this_machine.shutil, "which", lambda name: None)
    assert this_machine.torch().state == "fine"


@pytest.mark.parametrize(("free", "state"), [(10**8, "lacking"), (5 * 10**9, "warning"), (10**12, "fine")])
def test_a_disk_is_judged_by_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: Usage(10**12, 0, free))
    found = this_machine.disk(tmp_path / "artifacts" / "not" / "made")
    assert (found.state, found.remedy is None) == (state, state == "fine")
    assert found.found.endswith(f"free in {tmp_path}")
    assert not (tmp_path / "artifacts").exists()


def test_a_disk_on_which_nothing_may_be_written_is_lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _place, mode: mode != os.W_OK)
    lacks(this_machine.disk(tmp_path), "lacking", "nothing may be written")


@pytest.mark.parametrize(("load", "state"), [(0.1, "fine"), (7.9, "warning")])
def test_a_busy_machine_is_a_warning(monkeypatch: pytest.MonkeyPatch, load: float, state: str) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    found = this_machine.cores()
    assert (found.state, found.found) == (state, f"8, a load of {load} over the last minute")


def test_a_compiler_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def which(name: str) -> str | None:
        asked.append(name)
        return None

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setenv("CXX", "my-compiler")
    lacks(this_machine.compiler(), "warning", "there is no my-compiler", "latency.compiled")
    monkeypatch.delenv("CXX")
    lacks(this_machine.compiler(), "warning")
    assert asked[0] == "my-compiler"
    assert asked[1] in ("g++", "clang++")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert this_machine.compiler().state == "fine"


# The Hub and its token


def answer(status: int, path: str = "/") -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", f"https://hub.example{path}"))


def test_a_hub_that_does_not_answer_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refuse(*_given: Any, **_more: Any) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    monkeypatch.setattr(httpx2, "head", refuse)
    lacks(this_machine.hub(), "warning", "does not answer", "ConnectError")
    monkeypatch.setattr(httpx2, "head", lambda *_given, **_more: answer(503))
    lacks(this_machine.hub(), "warning", "503")
    monkeypatch.setattr(httpx2, "head", lambda *_given, **_more: answer(200))
    assert this_machine.hub().state == "fine"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    lacks(this_machine.hub(), "warning", "HF_HUB_OFFLINE")


class Account:
    """Stands in for the Hub, which knows whose a token is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, token: str | None = SECRET) -> None:
        self.answer: Any = {}
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(this_machine, "get_token", lambda: token)
        monkeypatch.setattr(this_machine, "HfApi", lambda: self)

    def whoami(self, token: str) -> dict[str, Any]:
        assert token == SECRET
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"name": "ada", "auth": {"type": "access_token", "accessToken": self.answer}}


def test_without_a_token_it_is_said_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    Account(monkeypatch, token=None)
    lacks(this_machine.token(), "warning", "there is none", "publish.target: hub")


WRITE_ONE = {"scoped": [{"entity": {"type": "org"}, "permissions": ["repo.content.read", "repo.write"]}]}


@pytest.mark.parametrize(
    ("about", "state", "found"),
    [
        ({"role": "write"}, "fine", "of ada, may read and write"),
        ({"role": "read"}, "warning", "of ada, may read, so not publish on the Hub"),
        ({"role": "fineGrained", "fineGrained": WRITE_ONE}, "fine", "of ada, may read and write"),
        (
            {"role": "fineGrained", "fineGrained": {"global": ["repo.content.read"]}},
            "warning",
            "of ada, may read, so not publish on the Hub",
        ),
        ({"role": "fineGrained"}, "warning", "of ada, may do nothing, so not publish on the Hub"),
    ],
)
def test_the_rights_of_a_token_are_said_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, about: dict[str, Any], state: str, found: str
) -> None:
    account = Account(monkeypatch)
    account.answer = about
    probe = this_machine.token()
    assert (probe.state, probe.found) == (state, found)
    assert SECRET not in probe.model_dump_json()


def test_a_token_that_the_hub_does_not_accept_or_does_not_judge_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(monkeypatch)
    account.answer = HfHubHTTPError("401 for " + SECRET, response=answer(401))
    lacks(this_machine.token(), "warning", "does not accept it")
    account.answer = HfHubHTTPError("busy", response=answer(503))
    lacks(this_machine.token(), "warning", "503")
    account.answer = httpx2.ConnectError(SECRET)
    probe = this_machine.token()
    lacks(probe, "warning", "not known")
    assert SECRET not in probe.model_dump_json()
