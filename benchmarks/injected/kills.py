"""Releases of a tiny model that get SIGKILL at random moments and are run again, to the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from benchmarks.injected.case import Answer, Answering, Case
from flows.release import release
from taylor_ops.latency import timing
from taylor_ops.storage.files import sha256_of_tree
from taylor_ops.verification import verify
from tests.support.prefect_database import made_once, temporary_server
from tests.support.tiny_models import save_tiny_model
from tests.support.tiny_release import decode_seconds, in_this_process, write_tiny_config

KINDS = ("killed once", "killed twice", "killed three times", "killed four times")
_LONGEST = 240.0
_LATEST = 0.8


class Releases:
    """Runs of one release, in processes that are forked from one in which everything is imported."""

    def __init__(self, config: Path, server: str, log: Path) -> None:
        self._config, self._server, self._log = config, server, log
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])

    def run(self, artifacts: Path, seconds: float = _LONGEST) -> int | None:
        """Release, and SIGKILL after so many seconds. Gives the exit status, None if it was killed."""
        process = self._context.Process(target=_release, args=(self._config, artifacts, self._server, self._log))
        process.start()
        process.join(seconds)
        killed = process.exitcode is None
        process.kill()
        process.join()
        return None if killed else process.exitcode


def _release(config: Path, artifacts: Path, server: str, log: Path) -> None:
    with log.open("a", encoding="utf-8") as said:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
    torch.set_num_threads(1)
    # All runs choose the same plan, and no consumer takes its time to begin.
    with (
        patch.object(timing, "decode_seconds", decode_seconds),
        patch.object(verify, "clean_process", in_this_process),
        temporary_settings({PREFECT_API_URL: server}),
    ):
        release(str(config), artifacts=str(artifacts))


@contextmanager
def answering(scratch: Path) -> Iterator[Answering]:
    """What kills releases, after one that is not disturbed."""
    place = scratch / "server"
    place.mkdir()
    with temporary_server(made_once(scratch), place):
        server = get_current_settings().api.url
        assert server is not None
        config = write_tiny_config(scratch / "tiny.yaml", save_tiny_model(scratch / "model"))
        releases = Releases(config, server, scratch / "runs.log")
        # The first one also pays for the process from which all are forked.
        for name in ("first", "undisturbed"):
            begun = time.monotonic()
            if releases.run(scratch / name) != 0:
                raise RuntimeError((scratch / "runs.log").read_text("utf-8")[-2000:])
            lasts = time.monotonic() - begun
        wanted = _published(scratch / "undisturbed")
        if not wanted or wanted != _published(scratch / "first"):
            raise RuntimeError("two releases that nobody disturbed have other bytes, or none")

        def answer(case: Case) -> Answer:
            draw, artifacts = random.Random(case.seed), scratch / f"case-{case.kind}-{case.seed}"
            kills = 0
            for _ in range(1 + KINDS.index(case.kind)):
                # What is left of a release that was killed takes less time than a whole one.
                status = releases.run(artifacts, draw.uniform(0, _LATEST * lasts))
                if status is not None:
                    break
                kills += 1
                # A version stands in the list either not at all or whole.
                if _published(artifacts) not in ({}, wanted):
                    return Answer("wrong accept", False, "a part of a release can be seen", kills)
            status = releases.run(artifacts)
            if status != 0:
                why = "the rerun hangs" if status is None else f"the rerun ends with {status}"
                return Answer("badly", False, f"{why}: {releases_end(scratch)}", kills)
            same = _published(artifacts) == wanted
            return Answer("well" if same else "wrong accept", True, "" if same else "the rerun has other bytes", kills)

        yield answer


def releases_end(scratch: Path) -> str:
    """The last of what the runs said."""
    return (scratch / "runs.log").read_text("utf-8", "replace")[-500:]


def _published(artifacts: Path) -> dict[str, str]:
    """The hashes of what a reader sees: names that begin with a dot are locks and what is still being written."""
    hub = artifacts / "hub"
    files = sha256_of_tree(hub) if hub.is_dir() else {}
    return {name: sha for name, sha in files.items() if not any(part.startswith(".") for part in Path(name).parts)}
