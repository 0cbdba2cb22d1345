"""No code of a source runs: files that name some are refused, and transformers is never asked to trust it."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from taylor_ops.config.source import FolderSource
from taylor_ops.errors import BadInput
from taylor_ops.source.resolve import resolve
from tests.support.commands import called_here
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import silent

ROOT = Path(__file__).parents[3]
RUNS_CODE_OF_BUNDLES = ["taylor_ops/verification/consumer.py"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model with code beside it that leaves a file where it runs."""
    folder = save_tiny_model(tmp_path / "model")
    for name in ("modeling_evil", "tokenization_evil", "processing_evil"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    return folder


def change(file: Path, **changes: object) -> None:
    document = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(document | changes))


MAPS = {
    "tokenizer_config.json": {"AutoTokenizer": ["tokenization_evil.Evil", None]},
    "processor_config.json": {"AutoProcessor": "processing_evil.Evil"},
    "preprocessor_config.json": {"AutoImageProcessor": "evil/elsewhere--processing_evil.Evil"},
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("tokenizer_class", [None, "EvilTokenizer"])
def test_a_file_that_names_code_is_refused_by_name_and_nothing_is_asked(
    source: Path,
    tmp_path: Path,
    name: str,
    tokenizer_class: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("builtins.input", lambda _text="": "y")
    change(source / name, auto_map=MAPS[name])
    if tokenizer_class:
        change(source / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    with pytest.raises(BadInput, match=rf"{name}: `auto_map` names code of the source") as caught:
        resolve(FolderSource(kind="folder", path=source), tmp_path / "resolved", silent)
    assert "evil" in caught.value.cause
    assert not (tmp_path / "marker").exists()


def test_plan_refuses_it_too(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _text="": "y")
    change(source / "tokenizer_config.json", auto_map=MAPS["tokenizer_config.json"], tokenizer_class="EvilTokenizer")
    config = tmp_path / "release.yaml"
    config.write_text(
        "name: tiny\nversion: 1.0.0\nsource: {kind: folder, path: model}\ncard: {license: mit}\n"
        "publish: {repo_id: org/tiny}\n"
    )
    done = called_here("plan", config, "--artifacts", tmp_path / "artifacts")
    assert done.returncode == 2
    assert "tokenizer_config.json: `auto_map` names code of the source" in done.stderr
    assert not (tmp_path / "marker").exists()


def test_code_of_an_architecture_of_transformers_itself_is_left_aside(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_text: str = "") -> str:
        raise AssertionError("a person was asked")

    monkeypatch.setattr("builtins.input", asked)
    change(source / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    resolve(FolderSource(kind="folder", path=source), tmp_path / "resolved", silent)
    assert not (tmp_path / "marker").exists()


def untrusting(source: str) -> list[tuple[int, bool]]:
    """Line of each call that may load code that a folder or config names, and whether it says what it trusts."""
    return [
        (node.lineno, any(keyword.arg == "trust_remote_code" for keyword in node.keywords))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        # Only these look for code in the folder.
        and ast.unparse(node.func.value).startswith("Auto")
    ]


def test_every_call_of_transformers_says_what_it_trusts() -> None:
    files = [path for top in ("taylor_ops", "flows") for path in sorted((ROOT / top).rglob("*.py"))]
    found = {path.relative_to(ROOT).as_posix(): untrusting(path.read_text(encoding="utf-8")) for path in files}
    assert sum(map(len, found.values())) >= 8
    assert [f"{name}:{line}" for name, calls in found.items() for line, says in calls if not says] == []
    trusting = [path.relative_to(ROOT).as_posix() for path in files if "trust_remote_code=True" in path.read_text()]
    assert sorted(trusting) == ["taylor_ops/model/loading.py", *RUNS_CODE_OF_BUNDLES]
    assert untrusting("AutoModel.from_pretrained(place)") == [(1, False)]


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a folder": lambda path: path.symlink_to(path.parent.parent),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors.index.json", "merges.txt"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_and_never_read(source: Path, tmp_path: Path, kind: str, name: str) -> None:
    (source / name).unlink(missing_ok=True)
    NO_FILES[kind](source / name)
    with pytest.raises(BadInput, match=f"{name} is {kind}, not a file"):
        resolve(FolderSource(kind="folder", path=source), tmp_path / "resolved", silent)


def test_a_folder_beside_the_files_is_left_aside(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer").mkdir()
    resolve(FolderSource(kind="folder", path=source), tmp_path / "resolved", silent)
