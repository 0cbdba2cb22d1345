"""Prefect servers of the tests begin with a database that is there: each would make its own by every migration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from filelock import FileLock
from prefect.testing import utilities


def made_once(base: Path) -> Path:
    """The file of an empty database, made by the first of the workers that share the folder `base`."""
    home = base / "prefect-database"
    with FileLock(base / "prefect-database.lock"):
        if not home.exists():
            unfinished = base / "prefect-database.unfinished"
            subprocess.run(
                [Path(sys.executable).with_name("prefect"), "server", "database", "upgrade", "-y"],
                env=os.environ | {"PREFECT_HOME": str(unfinished)},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            unfinished.rename(home)
    return home / "prefect.db"


@contextmanager
def temporary_server(database: Path, folder: Path) -> Iterator[None]:
    """`prefect_test_harness`, which removes its folder, with a copy of a database in place of none."""
    shutil.copyfile(database, folder / "prefect-test.db")
    with ExitStack() as stack:
        with patch.object(utilities, "mkdtemp", lambda: str(folder)):
            stack.enter_context(utilities.prefect_test_harness(server_startup_timeout=180))
        yield
