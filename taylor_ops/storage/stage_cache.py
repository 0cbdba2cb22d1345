"""Reuse of finished stages: a memory file says what a stage was made from, its record and the hashes of its files."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from taylor_ops.errors import WorkFailed
from taylor_ops.storage.files import canonical_json, sha256_of_tree, write_text
from taylor_ops.storage.record import Record

_KEY = "key"
_TOOLS = ("torch", "transformers", "tokenizers", "safetensors", "gguf", "numpy")

R = TypeVar("R", bound=Record)


class _Memory(Record):
    """What is remembered of a finished stage.

    Attributes:
        key: Key of the stage.
        record: Record of the stage, as plain JSON values.
        files: SHA-256 of every file that the stage wrote.
    """

    key: str
    record: dict[str, Any]
    files: dict[str, str]


def stage_key(modules: Sequence[str], inputs: Mapping[str, Any]) -> str:
    """A hash of all that decides the result of a stage: its inputs, its code, and the versions of the tools.

    Args:
        modules: The modules of the stage. Their code counts together with the code of all that they import.
        inputs: The inputs by name. A record counts by its `identity`, a config section by its values, plain JSON values
            as they are, and anything else by its text.
    """
    described = {name: _described(value) for name, value in inputs.items()}
    tools = {tool: version(tool) for tool in _TOOLS}
    text = canonical_json({"code": code_of(*modules), "inputs": described, "tools": tools})
    return hashlib.sha256(text.encode()).hexdigest()


def _described(value: Any) -> Any:
    if isinstance(value, Record):
        return value.identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)


@cache
def code_of(*modules: str) -> str:
    """Hash of the source of modules of taylor_ops and of every module of taylor_ops that they import, at any depth.

    Raises `LookupError` if one of them does not exist.
    """
    return hashlib.sha256(canonical_json(sources_of(*modules)).encode()).hexdigest()


def sources_of(*modules: str) -> dict[str, str]:
    """The source of modules of taylor_ops and of every module of taylor_ops that they import, by name.

    Raises `LookupError` if one of them does not exist.
    """
    sources: dict[str, str] = {}
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        if name in sources:
            continue
        sources[name] = _source_of(name).read_text(encoding="utf-8")
        for module, taken in _imports_in(sources[name]):
            waiting.append(module)
            waiting.extend(f"{module}.{part}" for part in taken if _is_module(module, part))
    return sources


@cache
def _imports_in(source: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The modules of taylor_ops that a text imports, each with the names that are taken from it.

    Stages share most modules, and to parse one takes longer than all else that a key needs of it.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.extend((alias.name, ()) for alias in node.names if alias.name.startswith("taylor_ops"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taylor_ops"):
            found.append((str(node.module), tuple(alias.name for alias in node.names)))
    return tuple(found)


def _source_of(module: str) -> Path:
    """The file of a module. A missing module is an error, as the hash of nothing would hide changes of the code."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise LookupError(f"the code that decides a stage names the module {module}, which does not exist")
    return Path(spec.origin)


def _is_module(module: str, part: str) -> bool:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.submodule_search_locations is None:
        return False
    return importlib.util.find_spec(f"{module}.{part}") is not None


def kept_beside(folder: Path) -> Path:
    """The folder in which a stage that writes `folder` keeps its finished parts until all parts are finished."""
    return folder.with_name(f".{folder.name}.kept")


def kept_under_key(folder: Path) -> Path:
    """The part of `kept_beside(folder)` that belongs to its key alone.

    A worker that a killed run left at work, on another machine and for other inputs, cannot reach it.
    """
    parts = kept_beside(folder)
    return parts / (parts / _KEY).read_text(encoding="utf-8")


@contextmanager
def kept_for(key: str, folder: Path) -> Iterator[None]:
    """Let a stage continue with the parts that an earlier run kept under the same key.

    The parts of another key are removed. On a clean exit, the parts of this key are removed too. After an error or a
    kill, they are kept. Raises `WorkFailed` if the parts of another key cannot be removed, because the stage would take
    them for its own.
    """
    parts = kept_beside(folder)
    note = parts / _KEY
    if not note.is_file() or note.read_text(encoding="utf-8") != key:
        _remove(parts)
        if parts.exists():
            raise WorkFailed(
                f"{parts}, which an earlier run left, cannot be removed",
                "end programs that still use it, or remove it by hand, then run again",
            )
        write_text(note, key)
    yield
    _remove(parts)


def _remove(parts: Path) -> None:
    """Remove kept parts, and their key first. A kill then leaves parts without a key, which no stage continues with."""
    (parts / _KEY).unlink(missing_ok=True)
    shutil.rmtree(parts, ignore_errors=True)


def recall(memory: Path, key: str, record_type: type[R], folder: Path) -> R | None:
    """The record of a stage that was finished under `key`, if every file in its `folder` is unchanged."""
    try:
        remembered = _Memory.read(memory)
        if remembered.key != key or sha256_of_tree(folder) != remembered.files:
            return None
        return record_type.model_validate(remembered.record)
    except (OSError, ValueError):
        return None


def remember(memory: Path, key: str, record: Record, folder: Path) -> None:
    """Note that a stage is finished. Call this last, so that a killed stage does not count as finished."""
    _Memory(key=key, record=record.plain(), files=sha256_of_tree(folder)).write(memory)
