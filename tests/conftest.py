"""What holds for every test: it shares no cores, no modeling code and no Prefect database with what runs beside it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

# What takes seconds to import is imported in the fixtures: the process that hands out the tests needs none of it, and
# the others begin when it has loaded this file.

WAIT_FOR_OTHERS = ("test_killed_run.py", "test_smollm2_release.py", "test_worker.py")
"""Files that take minutes, in which servers, worker processes and the disk are waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the files of `WAIT_FOR_OTHERS` one after the other, between others that keep the cores at work.

    Workers take whole files in this order. Were these waited for side by side, as they are collected, cores would idle.
    """
    files = [list(found) for _, found in groupby(items, lambda item: item.path)]
    waiting = [next((one for one in files if one[0].path.name == name), []) for name in WAIT_FOR_OTHERS]
    others = [one for one in files if one not in waiting]
    ordered: list[pytest.Item] = []
    for file in others:
        # The next begins when so many fifths of the other tests have begun.
        while waiting and len(ordered) >= (len(WAIT_FOR_OTHERS) - len(waiting)) * len(items) // 5:
            ordered += waiting.pop(0)
        ordered += file
    items[:] = ordered + [item for file in waiting for item in file]


@pytest.fixture(scope="session", autouse=True)
def apart_from_what_runs_beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One thread an operation, here and in programs that a test starts, and folders of this process alone.

    Several workers run the tests, and operations on several threads spend most of their time waiting for a core that
    something else uses. The folder of modeling code must not change once it is imported from.
    """
    import torch
    from transformers import dynamic_module_utils
    from transformers.utils import logging

    from taylor_ops.latency import timing

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect-home")))
        # A temporary server would report to its makers, and wait for a network that is not there.
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        scratch = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", scratch)
        # A share of a machine says nothing: what is timed here stands for a clock.
        patch.setattr(timing, "waited", dict)
        logging.disable_progress_bar()
        # What is imported stays, and every model that is loaded has all that is not frozen looked through.
        gc.freeze()
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an empty Prefect database, to be copied."""
    from tests.support.prefect_database import made_once

    base = tmp_path_factory.getbasetemp()
    return made_once(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
