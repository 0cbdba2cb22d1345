"""The records of a text source, from JSON lines, parquet, a text file or a data set, in the order of the config."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from taylor_ops.config.texts import DatasetSource, TextSource, columns_of
from taylor_ops.errors import BadInput
from taylor_ops.texts.data_sets import opened, place_of

_MARK = "\ufeff"
DEFAULT_COLUMNS = ("messages", "prompt", "text")

_SHIPPED = {
    "calibration": "calibration.jsonl",
    "held_out": "held_out_prompts.jsonl",
    "running_text": "running_text.txt",
}


@dataclass(frozen=True)
class TextRecord:
    """One record, and the place that an error about it names.

    Attributes:
        place: File and line, or data set and row.
        id: The id that the record states, or else its number, counted from 1.
        kind: The kind that the record states.
        columns: The values that the text source may ask for, by column.
        names: The names of all columns that the record has.
    """

    place: str
    id: str
    kind: str | None
    columns: dict[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """Records that can be read in any order. Each is read and checked when its turn comes."""

    count: int
    at: Callable[[int], TextRecord]


def shipped(name: str) -> Path:
    """Path of one of the texts that the project ships: `calibration`, `held_out` or `running_text`."""
    return Path(str(files("taylor_ops") / "data" / _SHIPPED[name]))


def file_of(source: TextSource) -> Path:
    """The file of a text source that is no data set. Raises `BadInput` if it does not exist."""
    path = shipped(source.builtin) if source.builtin else source.file
    if path is None or not path.is_file():
        raise BadInput(f"text file {path} does not exist", f"correct the text source `{source.name}`")
    return path


def origin_of(source: TextSource) -> str:
    """The name of the file or data set in errors."""
    return place_of(source.dataset) if source.dataset else str(file_of(source))


def records(source: TextSource) -> Iterator[TextRecord]:
    """Every record of a text source, one after the other: in their order, or shuffled with `seed`.

    Raises:
        BadInput: The file or data set cannot be read, or a line holds no record. The error names it.
    """
    with _table(source) as table:
        order = list(range(table.count))
        if source.seed is not None:
            random.Random(source.seed).shuffle(order)
        for index in order:
            yield table.at(index)


@contextmanager
def _table(source: TextSource) -> Iterator[_Table]:
    columns = _columns_read(source)
    if source.dataset is not None:
        with opened(source.dataset) as data_set:
            yield _data_set_table(source.dataset, data_set, columns)
        return
    path = file_of(source)
    if path.suffix == ".parquet":
        yield _parquet_table(path, columns)
    else:
        text = _read(path)
        yield _lines_table(path, text) if path.suffix == ".jsonl" else _text_table(path, text)


def _columns_read(source: TextSource) -> list[str]:
    """The columns to read. Images and other data of a data set are not loaded."""
    if source.template is not None:
        return columns_of(source.template)
    return list(DEFAULT_COLUMNS) if source.column is None else [source.column]


def _read(path: Path) -> str:
    try:
        # Editors and shells of Windows begin a file with a byte order mark, which is no part of its text.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is no UTF-8 text: {error}", "save the file as UTF-8, with or without a mark") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}", "correct the text source in the config") from error


def _text_table(path: Path, text: str) -> _Table:
    return _Table(1, lambda _index: TextRecord(str(path), "1", None, {"text": text}, ("text",)))


def _lines_table(path: Path, text: str) -> _Table:
    # Split at line feeds alone, because a JSON string may hold other characters that Python takes for line ends.
    # Where files were joined, a line may begin with the byte order mark of the second one.
    numbered = ((number, line.removeprefix(_MARK)) for number, line in enumerate(text.split("\n"), start=1))
    lines = [(number, line) for number, line in numbered if line.strip()]

    def at(index: int) -> TextRecord:
        number, line = lines[index]
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
            # Half a surrogate pair is valid JSON, but it is no text, and nothing after this could encode it.
            json.dumps(record, ensure_ascii=False).encode()
        except ValueError as error:
            raise BadInput(f"{path}:{number}: {error}", "write one JSON object on each line") from error
        kind = str(record["kind"]) if "kind" in record else None
        record_id = str(record.get("id", index + 1))
        return TextRecord(f"{path}:{number}", record_id, kind, record, tuple(sorted(record)))

    return _Table(len(lines), at)


def _parquet_table(path: Path, columns: list[str]) -> _Table:
    import pyarrow
    from pyarrow import parquet

    try:
        names = list(parquet.read_schema(path).names)
        rows = parquet.read_table(path, columns=[name for name in columns if name in names], partitioning=None)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path} cannot be read: {reason}", "correct the text source in the config") from error
    return _Table(
        rows.num_rows, partial(_row, str(path), tuple(names), lambda index: rows.slice(index, 1).to_pylist()[0])
    )


def _data_set_table(source: DatasetSource, data_set: Any, columns: list[str]) -> _Table:
    names = tuple(data_set.column_names)
    columns = [name for name in columns if name in names]
    rows = data_set.select_columns(columns)
    # Without columns, `datasets` has no rows either. An empty row leads to the error that names the columns.
    return _Table(data_set.num_rows, partial(_row, place_of(source), names, rows.__getitem__ if columns else _nothing))


def _nothing(_index: int) -> dict[str, Any]:
    return {}


def _row(place: str, names: tuple[str, ...], at: Callable[[int], dict[str, Any]], index: int) -> TextRecord:
    place = f"{place}, row {index + 1}"
    try:
        return TextRecord(place, str(index + 1), None, at(index), names)
    except ValueError as error:
        raise BadInput(
            f"{place}: {' '.join(str(error).split())}", "correct the data, or take another column"
        ) from error
