"""Prefect servers of the tests begin with a database that is there: each would make its own by every migration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_HOME, temporary_settings
from prefect.testing import utilities

from flows.run.prefect_database import empty_database
from tests.support.dependents import end_with_this_process


def made_once(base: Path) -> Path:
    """The file of an empty database, made by the first of the workers that share the folder `base`."""
    with temporary_settings({PREFECT_HOME: base / "prefect-home"}):
        return empty_database()


@contextmanager
def temporary_server(database: Path, folder: Path) -> Iterator[None]:
    """`prefect_test_harness`, which removes its folder, with a copy of a database in place of none."""
    shutil.copyfile(database, folder / "prefect-test.db")
    with ExitStack() as stack:
        with patch.object(utilities, "mkdtemp", lambda: str(folder)):
            stack.enter_context(utilities.prefect_test_harness(server_startup_timeout=180))
        server = SubprocessASGIServer().server_process
        assert server is not None
        end_with_this_process(server)
        yield
