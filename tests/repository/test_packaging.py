"""The wheel: what it contains, and a release by it where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from flows.run.prefect_database import template_in
from tests.support.tiny_models import save_tiny_model

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "taylor_ops")
BESIDE = ("benchmarks", "release_configs", "tests")
"""Folders of the checkout that a wheel could take for packages of its own."""

CONFIG = {
    "name": "tiny",
    "version": "1.0.0",
    "source": {"kind": "folder", "path": "model"},
    "calibration": {"tokens": 1024},
    "conversion": {"tolerance": 0.01},
    # Whatever a busy machine measures is near enough: what is tested here is no clock.
    "latency": {
        "target_slowdown": 2.0,
        "tolerance": 0.5,
        "disturbance": 1,
        "prompt_tokens": 16,
        "new_tokens": 4,
        "min_seconds": 0,
        "also": [],
    },
    "exactness": {
        "prompts": [{"name": "project", "builtin": "held_out", "limit": 3}],
        "new_tokens": 8,
        "running_tokens": 64,
    },
    "audit": {"prompts": 4, "new_tokens": 8, "attacks": ["rank_one"]},
    "card": {"license": "mit"},
    "publish": {"repo_id": "org/tiny"},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from: in the checkout an earlier build would shine through."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in (*PACKAGES, *BESIDE):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the checkout, built by the setuptools that is installed here: without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    # Of a copy again: a build writes into its source.
    copy = shutil.copytree(source, folder / "source")
    pip("wheel", copy, "--no-build-isolation", "--wheel-dir", folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and the packages that it requires.

    Those are the ones of the tests, by a path: what an editable install does to find the checkout is not done for it.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    places = {"base": str(folder), "platbase": str(folder)}
    requirements = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(sysconfig.get_path("purelib", "venv", places), "requirements.pth").write_text("\n".join(requirements), "utf-8")
    pip("--python", folder / "bin" / "python", "install", wheel)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the config of a tiny model, and the model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    # Wide enough for columns to cost time: a target of twice the original's is within reach then.
    save_tiny_model(folder / "model", hidden_size=128, intermediate_size=512)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(CONFIG), "utf-8")
    return folder


@pytest.fixture(scope="module")
def home(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Prefect in which the empty database is made already."""
    folder = tmp_path_factory.mktemp("home")
    template = template_in(folder)
    template.parent.mkdir()
    shutil.copyfile(prefect_database, template)
    return folder


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-index", "--no-deps"]
    # A path to the checkout would make pip believe that it is installed already.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def called(program: Path, *arguments: str, cwd: Path, **variables: str) -> str:
    """What a program says that ends with 0, and that no variable leads to the checkout or to a server."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PREFECT_API_URL")}
    done = subprocess.run(
        [program, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=kept | variables,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_beside_them(source: Path, wheel: Path) -> None:
    files = {
        path.relative_to(source).as_posix()
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    with ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert held == files
    assert {"taylor_ops/data/calibration.jsonl", "taylor_ops/templates/card.md.j2"} <= held
    assert "taylor_ops/modeling/taylor_mlp.py" in held


def test_what_is_installed_is_imported_and_not_the_checkout(environment: Path, tmp_path: Path) -> None:
    asked = "import flows, taylor_ops; print(flows.__file__, taylor_ops.__file__, sep='\\n')"
    imported = called(environment / "bin" / "python", "-c", asked, cwd=tmp_path).splitlines()
    assert [Path(file).is_relative_to(environment) for file in imported] == [True, True]


def test_configs_are_checked_outside_of_a_checkout(environment: Path, elsewhere: Path, tmp_path: Path) -> None:
    program = environment / "bin" / "taylor-release"
    assert called(program, "check", str(elsewhere / "tiny.yaml"), cwd=tmp_path) == "1 config in order\n"
    schema = (ROOT / "release_configs" / "release-config.schema.json").read_text("utf-8")
    assert called(program, "schema", cwd=tmp_path) == schema


def test_a_model_is_released_and_verified_outside_of_a_checkout(
    environment: Path, elsewhere: Path, home: Path, tmp_path: Path
) -> None:
    program = environment / "bin" / "taylor-release"
    variables = {
        "HF_HOME": str(home / "huggingface"),
        "PREFECT_HOME": str(home),
        # The server of a run starts slowly where all cores are busy.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    }
    model = f"source.path={elsewhere / 'model'}"
    called(program, "run", str(elsewhere / "tiny.yaml"), "--set", model, cwd=tmp_path, **variables)
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
    bundle = Path("artifacts", "hub", "org", "tiny", "1.0.0")
    said = called(program, "verify", str(bundle), cwd=tmp_path, **variables)
    assert said.endswith("; 3 prompts continued with the 24 recorded tokens\n")
