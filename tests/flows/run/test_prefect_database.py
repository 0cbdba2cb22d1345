"""Empty databases, and whether one has every migration: what Prefect itself would find by loading all of them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from prefect.server.database import alembic_commands
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_HOME, temporary_settings

from flows.run import prefect_database as databases
from flows.run.prefect_database import empty_database, is_chosen, is_migrated, last_migrations
from taylor_ops.errors import WorkFailed


def found_in(file: Path | str) -> bool:
    """What is said of the database in a file."""
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}"}):
        return is_migrated()


def test_the_last_migration_is_the_one_that_prefect_would_migrate_to() -> None:
    folder = Path(alembic_commands.__file__).parent / "_migrations"
    head = ScriptDirectory(folder, version_locations=[str(folder / "versions" / "sqlite")]).get_current_head()
    assert last_migrations() == {head}


def test_an_empty_database_is_at_its_last_migration(prefect_database: Path) -> None:
    assert found_in(prefect_database)


@pytest.mark.parametrize(
    "change", ["update alembic_version set version_num = 'f416ea180ae1'", "drop table alembic_version"]
)
def test_an_older_database_is_left_to_prefect(prefect_database: Path, tmp_path: Path, change: str) -> None:
    older = tmp_path / "prefect.db"
    shutil.copyfile(prefect_database, older)
    with closing(sqlite3.connect(older)) as database:
        database.execute(change)
        database.commit()
    assert not found_in(older)


def test_what_is_no_database_yet_or_none_of_sqlite_is_left_to_prefect(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("none", encoding="utf-8")
    assert not found_in(tmp_path / "text.db")
    assert not found_in(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    assert not found_in("file::memory:?cache=shared&uri=true&check_same_thread=false")


def test_the_file_in_the_home_of_prefect_is_no_choice_and_any_other_is(tmp_path: Path) -> None:
    # The server of other tests has a database of its own in the settings of this process.
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_DATABASE_CONNECTION_URL}):
        assert not is_chosen()
        for chosen in (f"sqlite+aiosqlite:///{tmp_path}/other.db", "postgresql+asyncpg://host/prefect"):
            with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: chosen}):
                assert is_chosen()


def test_a_database_that_prefect_cannot_make_is_an_error_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases.sys, "executable", "false")
    with temporary_settings({PREFECT_HOME: tmp_path}):
        for _ in range(2):
            with pytest.raises(WorkFailed, match=f"cannot make a database in {tmp_path}"):
                empty_database()
