"""Databases for temporary Prefect servers, without loading every migration of Prefect each time."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import prefect
from filelock import FileLock
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME

from taylor_ops.errors import WorkFailed

_FILE = re.compile(r"sqlite\+aiosqlite:///(/[^?:]+)")
_STATED = {name: re.compile(rf"^{name}\b[^=\n]*=(.*)$", re.MULTILINE) for name in ("revision", "down_revision")}
_REVISION = re.compile(r"['\"]([0-9a-z_]+)['\"]")


def at(file: Path) -> dict[str, str]:
    """Environment in which a server keeps its database in a file."""
    # Prefect takes either name, and the first that is set.
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    return dict.fromkeys(names, f"sqlite+aiosqlite:///{file}")


def is_chosen() -> bool:
    """Whether somebody has chosen another database than the file in Prefect's home."""
    return bool(PREFECT_API_DATABASE_CONNECTION_URL.value() != f"sqlite+aiosqlite:///{PREFECT_HOME.value()}/prefect.db")


def is_migrated() -> bool:
    """Whether the configured database is a SQLite file at the last migration of this Prefect.

    False also means that it cannot be told: the server then looks itself, and migrates what is left.
    """
    found = _FILE.fullmatch(PREFECT_API_DATABASE_CONNECTION_URL.value() or "")
    if found is None or not Path(found[1]).is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{Path(found[1]).as_uri()}?mode=ro", uri=True)) as database:
            applied = {str(row[0]) for row in database.execute("select version_num from alembic_version")}
    except sqlite3.Error:
        return False
    return len(applied) == 1 and applied == last_migrations()


def last_migrations() -> set[str]:
    """The migrations of this Prefect for SQLite that no other one follows."""
    folder = Path(prefect.__file__).parent / "server" / "database" / "_migrations" / "versions" / "sqlite"
    named: dict[str, set[str]] = {"revision": set(), "down_revision": set()}
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name, stated in _STATED.items():
            found = stated.search(text)
            named[name].update(_REVISION.findall(found[1]) if found else ())
    return named["revision"] - named["down_revision"]


def template_in(home: Path) -> Path:
    """The file in a home of Prefect that holds an empty database of this version."""
    return home / "taylor-release" / f"empty-{prefect.__version__}.db"


def empty_database() -> Path:
    """The file of an empty database with every migration of this Prefect, to be copied. Only the first call makes it.

    Raises:
        WorkFailed: If Prefect cannot make it. The error ends with what Prefect says.
    """
    template = template_in(PREFECT_HOME.value())
    template.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(template.with_suffix(".lock")):
        if not template.exists():
            print(f"making an empty database, once for Prefect {prefect.__version__}", file=sys.stderr, flush=True)
            _make(template)
    return template


def _make(template: Path) -> None:
    # With the files beside it that SQLite leaves behind when it is killed.
    unfinished = template.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
        env=os.environ | at(unfinished / template.name),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WorkFailed(
            f"Prefect cannot make a database in {template.parent}: {' '.join(done.stderr.split())[-300:]}",
            "free some space there, or name another folder as PREFECT_HOME",
        )
    (unfinished / template.name).replace(template)
    shutil.rmtree(unfinished)
