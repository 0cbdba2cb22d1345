"""The Python that `make` takes: the newest that runs, or the one it is given; and what it says where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")
NEEDED = "error: Python 3.11 to 3.14 with venv is needed; "
REMEDY = "remedy: install one, or say where it is: make PYTHON=/path/to/python3.x"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that set-up depends on, and a folder of programs."""
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "programs").mkdir()
    return tmp_path


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)


def pythons(checkout: Path, *good: str) -> None:
    """Programs with every name of a Python, of which those run that are named; the others say they are not there."""
    for name in NAMES:
        suits = f'case "$1" in -V) echo "{name}";; -m) mkdir -p "$3/bin";; esac'
        write_program(checkout / "programs" / name, suits if name in good else "exit 127")


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make with these Pythons, and install nothing."""
    program = shutil.which("make")
    assert program
    return subprocess.run(
        [program, *arguments, "PIP=true"],
        cwd=checkout,
        # Not those of a make that runs this test.
        env={"PATH": f"{checkout / 'programs'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("good", "taken"),
    [
        (NAMES, "python3.14"),
        (("python3.11", "python3.13"), "python3.13"),
        (("python3.11", "python3"), "python3.11"),
        (("python3",), "python3"),
    ],
)
def test_the_newest_python_that_runs_is_taken(checkout: Path, good: tuple[str, ...], taken: str) -> None:
    pythons(checkout, *good)
    done = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    assert f"{taken} -m venv .venv" in done.stdout.splitlines()
    assert (checkout / ".venv" / ".ready").exists()


def test_without_a_python_that_suits_set_up_ends_with_what_is_needed_and_clean_works(checkout: Path) -> None:
    pythons(checkout)
    done = make(checkout, "setup")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [f"{NEEDED}none is found", REMEDY]
    assert not (checkout / ".venv").exists()
    assert make(checkout, "clean").returncode == 0


@pytest.mark.parametrize(
    ("version", "suits"), [("2, 7", False), ("3, 10", False), ("3, 11", True), ("3, 14", True), ("3, 15", False)]
)
def test_a_given_python_is_taken_from_3_11_to_3_14_and_else_refused(checkout: Path, version: str, suits: bool) -> None:
    pythons(checkout, *NAMES)
    # The Python of the tests, told another version, is asked what make asks.
    other = f"import sys; sys.version_info = ({version}, 0); exec(sys.argv[1])"
    asked = f'''exec {sys.executable} -c "{other}" "$2"'''
    write_program(checkout / "given", f"""case "$1" in -c) {asked};; -m) mkdir -p "$3/bin";; esac""")
    done = make(checkout, "setup", "PYTHON=./given")
    if suits:
        assert done.returncode == 0, done.stderr
        assert "./given -m venv .venv" in done.stdout.splitlines()
    else:
        assert done.returncode == 2
        assert done.stderr.splitlines()[:2] == [f"{NEEDED}./given is not that", REMEDY]


def test_a_given_python_that_is_missing_is_refused_although_others_are_there(checkout: Path) -> None:
    pythons(checkout, *NAMES)
    done = make(checkout, "setup", "PYTHON=./missing")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [f"{NEEDED}./missing is not that", REMEDY]


def test_an_environment_of_another_python_is_replaced_and_one_of_the_same_is_kept(checkout: Path) -> None:
    pythons(checkout, "python3.12")
    old = checkout / ".venv" / "bin" / "python"
    old.parent.mkdir(parents=True)
    for version, kept in (("python3.12", True), ("python3.11", False)):
        write_program(old, f"echo {version}")
        (checkout / ".venv" / ".ready").unlink(missing_ok=True)
        assert make(checkout, "setup").returncode == 0
        assert old.exists() is kept
