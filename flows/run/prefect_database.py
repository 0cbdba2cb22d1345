"""Whether Prefect's database has every migration. Prefect loads each one of them only to find that out."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import prefect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

_FILE = re.compile(r"sqlite\+aiosqlite:///(/[^?:]+)")
_STATED = {name: re.compile(rf"^{name}\b[^=\n]*=(.*)$", re.MULTILINE) for name in ("revision", "down_revision")}
_REVISION = re.compile(r"['\"]([0-9a-z_]+)['\"]")


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
