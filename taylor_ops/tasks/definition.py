"""Read what defines a task of lm-eval, and refuse whatever in it would run code.

lm-eval runs functions and classes that a task names, loads metrics as code from the Hub, and `datasets` reads pickle
files. Here a task is plain data: keys, metrics and formats that are known to run nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from taylor_ops.config.exactness import Task
from taylor_ops.config.section import REPO_ID
from taylor_ops.errors import BadInput
from taylor_ops.storage.files import sha256_of

_KEYS = frozenset(
    {
        "task",
        "task_alias",
        "tag",
        "dataset_path",
        "dataset_name",
        "dataset_kwargs",
        "training_split",
        "validation_split",
        "test_split",
        "fewshot_split",
        "fewshot_config",
        "num_fewshot",
        "output_type",
        "doc_to_text",
        "doc_to_target",
        "doc_to_choice",
        "description",
        "target_delimiter",
        "fewshot_delimiter",
        "gen_prefix",
        "generation_kwargs",
        "repeats",
        "filter_list",
        "metric_list",
        "metadata",
        "should_decontaminate",
        "doc_to_decontamination_query",
    }
)
# lm-eval takes any other one for a program on the Hub.
_METRICS = frozenset(
    {
        "acc",
        "acc_norm",
        "acc_bytes",
        "acc_mutual_info",
        "brier_score",
        "exact_match",
        "f1",
        "mcc",
        "likelihood",
        "perplexity",
        "word_perplexity",
        "byte_perplexity",
        "bits_per_byte",
    }
)
# Another one may be a program: `custom_generate` is one on the Hub.
_GENERATING = frozenset(
    {
        "until",
        "max_gen_toks",
        "max_new_tokens",
        "max_tokens",
        "max_length",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "repetition_penalty",
    }
)
_FORMATS = ("arrow", "csv", "json", "parquet", "text")
_OF_FILES, _OF_THE_HUB = ("data_files", "field", "delimiter"), ("revision",)
_REMEDY = "describe the task by data alone, without functions, classes, includes and programs (docs/exactness.md)"


@dataclass(frozen=True)
class Definition:
    """A task of lm-eval as plain data.

    Attributes:
        values: What lm-eval is given. Data files have absolute paths.
    """

    values: dict[str, Any]

    @property
    def task(self) -> str:
        """Its name."""
        return str(self.values["task"])

    @property
    def data_files(self) -> Any:
        """The data files as the task lists them, None if its data set is on the Hub."""
        return self.values.get("dataset_kwargs", {}).get("data_files")

    @property
    def hub_name(self) -> str | None:
        """The data set on the Hub, None if the task reads files."""
        return None if self.data_files is not None else str(self.values["dataset_path"])

    def identity(self) -> str:
        """Everything that decides the questions, with the bytes of the data files in place of their names, as JSON."""
        values = dict(self.values)
        if self.data_files is not None:
            hashes = _changed(self.data_files, lambda name: sha256_of(Path(name)))
            values["dataset_kwargs"] = values["dataset_kwargs"] | {"data_files": hashes}
        # YAML knows dates, and keys that are numbers.
        return json.dumps(values, default=str)


def definition_of(task: Task) -> Definition:
    """What defines a task.

    Raises:
        BadInput: The task does not exist or cannot be read, or something in it could run code.
    """
    if task.file is None:
        path, inside = _named(str(task.name)), _tasks_of_lm_eval()
    else:
        path, inside = task.file, None
    values = _plain(path, task.place, inside)
    generating = values.get("generation_kwargs") or {}
    for given, known in ((values, _KEYS), (generating, _GENERATING)):
        unknown = next((key for key in given if key not in known), None) if isinstance(given, dict) else given
        if unknown is not None:
            raise BadInput(f"{task.place}: the key `{unknown}` is not taken, as it may run code", _REMEDY)
    if not isinstance(values.get("task"), str):
        raise BadInput(f"{task.place}: `task` must be the name of one task", "name a task, not a group of them")
    _require_known_metrics(values, task.place)
    return Definition(values | _data_set(values, path.parent, task.place))


def _require_known_metrics(values: dict[str, Any], place: str) -> None:
    metrics = values.get("metric_list") or []
    for one in metrics if isinstance(metrics, list) else [metrics]:
        name = one.get("metric") if isinstance(one, dict) else one
        if not isinstance(one, dict) or str(name) not in _METRICS or one.get("hf_evaluate"):
            raise BadInput(
                f"{place}: the metric `{name}` of `metric_list` is not taken, as it may run code",
                f"use metrics of lm-eval itself: {', '.join(sorted(_METRICS))}",
            )


def _data_set(values: dict[str, Any], folder: Path, place: str) -> dict[str, Any]:
    """The keys of the data set, which is one of the Hub, or files whose paths are then absolute."""
    path, given = values.get("dataset_path"), values.get("dataset_kwargs") or {}
    known = _OF_FILES if path in _FORMATS else _OF_THE_HUB
    if path not in _FORMATS and not re.match(REPO_ID, str(path)):
        raise BadInput(
            f"{place}: `dataset_path` is `{path}`, neither a format nor a data set of the Hub",
            f"give {', '.join(_FORMATS)} and `dataset_kwargs.data_files`, or OWNER/NAME on the Hub",
        )
    unknown = next((key for key in given if key not in known), None) if isinstance(given, dict) else "dataset_kwargs"
    if unknown is not None:
        raise BadInput(f"{place}: `{unknown}` of the data set is not taken, as it may run code", _REMEDY)
    if path not in _FORMATS:
        return {"dataset_kwargs": given}

    def existing(name: str) -> str:
        file = (folder / name).absolute()
        if not file.is_file():
            raise BadInput(f"{place}: the data file {file} does not exist", "correct `dataset_kwargs.data_files`")
        return str(file)

    if not given.get("data_files"):
        raise BadInput(f"{place}: `dataset_path: {path}` has no data files", "give `dataset_kwargs.data_files`")
    return {"dataset_kwargs": given | {"data_files": _changed(given["data_files"], existing)}}


def _changed(files: Any, change: Callable[[str], str]) -> Any:
    """The files, as a name, a list or a mapping of splits, with every name changed."""
    if isinstance(files, dict):
        return {split: _changed(those, change) for split, those in files.items()}
    if isinstance(files, list):
        return [change(str(one)) for one in files]
    return change(str(files))


def _plain(path: Path, place: str, inside: Path | None) -> dict[str, Any]:
    """The values of a YAML file. With `inside`, it may include others from that folder."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        tag = re.search(r"'([^']*)'", str(error.problem))
        named = f"`{tag[1]}`" if tag else str(error.problem)
        cause = f"{place}: {named} in line {line} of {path.name} is not taken, as it may run code"
        raise BadInput(cause, _REMEDY) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{place}: cannot be read: {reason}", "correct the file of the task") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise BadInput(f"{place}: {path.name} is no mapping of keys to values", "correct the file of the task")
    if inside is None or "include" not in values:
        return values
    merged: dict[str, Any] = {}
    included = values.pop("include")
    for name in included if isinstance(included, list) else [included]:
        other = (path.parent / str(name)).resolve()
        if not other.is_relative_to(inside):
            raise BadInput(f"{place}: includes {other}, a file outside of lm-eval", _REMEDY)
        merged |= _plain(other, place, inside)
    return merged | values


def _tasks_of_lm_eval() -> Path:
    found = find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None  # the config was refused without it
    return Path(found.origin).resolve().parent / "tasks"


@cache
def _named(name: str) -> Path:
    """The file of lm-eval that defines a task. Most are called like their task."""
    root, declares = _tasks_of_lm_eval(), re.compile(rf"^task:\s*[\"']?{re.escape(name)}[\"']?\s*$", re.MULTILINE)
    for pattern in (f"{name}.yaml", "*.yaml"):
        for path in sorted(root.rglob(pattern)):
            if declares.search(path.read_text(encoding="utf-8", errors="replace")):
                return path
    raise BadInput(
        f"lm-eval has no task `{name}`",
        "`lm-eval ls subtasks` lists its tasks; of a group, name each task in `exactness.tasks`",
    )
