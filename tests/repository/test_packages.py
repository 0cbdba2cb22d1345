"""The order of the packages: what `make lint` refuses, and what a reader can count on in every folder."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [path.parent for top in ("taylor_ops", "flows") for path in sorted((ROOT / top).rglob("__init__.py"))]


def linted(checkout: Path) -> subprocess.CompletedProcess[str]:
    """What the import contracts say of a checkout."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the contracts look at."""
    for top in ("taylor_ops", "flows"):
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(room: Path, line: str) -> None:
    """Add an import to a room."""
    room.write_text(room.read_text("utf-8") + f"\n{line}\n", encoding="utf-8")


def test_the_packages_keep_their_order(checkout: Path) -> None:
    done = linted(checkout)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("taylor_ops/series/plan.py", "from taylor_ops.model.original import Original", "imports go down BROKEN"),
        ("taylor_ops/capture/capture.py", "import taylor_ops.conversion.terms", "imports go down BROKEN"),
        ("taylor_ops/source/record.py", "import torch", "records and configs are light BROKEN"),
        ("taylor_ops/config/card.py", "import matplotlib", "records and configs are light BROKEN"),
        ("taylor_ops/latency/timing.py", "import prefect", "taylor_ops knows no Prefect BROKEN"),
        ("flows/run/progress.py", "import flows.tasks.proof", "commands, flows, work BROKEN"),
        ("taylor_ops/errors.py", "import flows.parameters", "commands, flows, work BROKEN"),
    ],
)
def test_an_import_that_breaks_the_order_fails_the_lint(checkout: Path, room: str, line: str, contract: str) -> None:
    plant(checkout / room, line)
    done = linted(checkout)
    assert done.returncode == 1
    assert contract in done.stdout


def test_a_package_without_a_place_in_the_order_fails_the_lint(checkout: Path) -> None:
    (checkout / "taylor_ops" / "extra").mkdir()
    (checkout / "taylor_ops" / "extra" / "__init__.py").write_text('"""Extra."""\n', encoding="utf-8")
    assert linted(checkout).returncode == 1


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_package_begins_with_a_docstring_that_lists_its_rooms_and_holds_nothing_else(package: Path) -> None:
    (only,) = ast.parse((package / "__init__.py").read_text("utf-8")).body
    assert isinstance(only, ast.Expr)
    listing = str(ast.literal_eval(only.value))
    rooms = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    if package.name not in ("taylor_ops", "flows"):
        assert [room for room in sorted(rooms) if f"\n{room} " not in listing] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_folder_has_at_most_twelve_rooms_and_a_room_at_most_400_lines(package: Path) -> None:
    rooms = [path for path in package.glob("*.py") if path.stem not in ("__init__", "__main__")]
    assert len(rooms) <= (4 if package.name in ("taylor_ops", "flows") else 12)
    assert [room.name for room in rooms if len(room.read_text("utf-8").splitlines()) > 400] == []
    for room in rooms:
        assert ast.get_docstring(ast.parse(room.read_text("utf-8"))), f"{room} does not say what it is for"


def test_the_layer_that_ships_imports_nothing_of_this_project() -> None:
    text = (ROOT / "taylor_ops" / "modeling" / "taylor_mlp.py").read_text("utf-8")
    assert "taylor_ops" not in {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
