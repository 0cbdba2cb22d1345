"""Data sets of the Hub and of folders are read as they are, from the commit that is named, or refused in two lines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest

from taylor_ops.config.texts import DatasetSource, TextSource
from taylor_ops.errors import BadInput
from taylor_ops.texts.data_sets import identity_of, opened
from taylor_ops.texts.prompts import prompts, text_hashes
from tests.support.tiny_models import tokenizer

TOKENIZER = tokenizer()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUESTIONS = [{"question": f"Question {number}?", "choices": ["yes", "no"]} for number in range(4)]
CARD = """\
---
configs:
- config_name: main
  data_files: [{split: test, path: test.jsonl}]
- config_name: other
  data_files: [{split: test, path: other.jsonl}]
---
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with two configurations, one split each."""
    place = tmp_path / "asked"
    place.mkdir()
    (place / "README.md").write_text(CARD, encoding="utf-8")
    (place / "test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS), encoding="utf-8")
    (place / "other.jsonl").write_text('{"question": "Another?"}\n', encoding="utf-8")
    return place


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the library, on a machine without a connection."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def local(folder: Path, **changes: Any) -> DatasetSource:
    return DatasetSource(**({"folder": folder, "config": "main", "split": "test"} | changes))


def of_the_hub(**changes: Any) -> DatasetSource:
    return DatasetSource(**({"name": "owner/asked", "config": "main", "split": "test", "revision": COMMIT} | changes))


def text(dataset: DatasetSource, **changes: Any) -> TextSource:
    return TextSource(**({"name": "mine", "dataset": dataset} | changes))


def said(dataset: DatasetSource, **changes: Any) -> list[str]:
    """The prompts of a data set as text."""
    return [TOKENIZER.decode(prompt.tokens) for prompt in prompts(text(dataset, **changes), TOKENIZER)]


def refused(dataset: DatasetSource, **changes: Any) -> BadInput:
    """The error about a data set: one line of cause, one of remedy."""
    with pytest.raises(BadInput) as caught:
        prompts(text(dataset, **changes), TOKENIZER)
    assert "\n" not in caught.value.cause + caught.value.remedy
    return caught.value


# Folders


def test_a_folder_is_read_by_configuration_and_split(folder: Path) -> None:
    assert said(local(folder), column="question") == [one["question"] for one in QUESTIONS]
    assert said(local(folder, config="other"), column="question") == ["Another?"]


def test_a_template_takes_several_columns_and_a_list_a_line_an_item(folder: Path) -> None:
    [first, *_] = said(local(folder), template="{question}\n{choices}\nAnswer:", chat_template=True, limit=1)
    assert first == "<user>Question 0?\nyes\nno\nAnswer:\n<assistant>"


def test_prompts_are_called_by_their_row_and_the_name_of_the_source(folder: Path) -> None:
    taken = prompts(text(local(folder), column="question", seed=3, limit=2), TOKENIZER)
    for prompt in taken:
        assert TOKENIZER.decode(prompt.tokens) == QUESTIONS[int(prompt.id) - 1]["question"]
        assert prompt.kind == "mine"


def test_turns_of_a_chat_go_through_the_chat_template(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Why?"}]
    datasets.Dataset.from_list([{"messages": turns, "prompt": "not this"}]).save_to_disk(tmp_path / "chats")
    chats = DatasetSource(folder=tmp_path / "chats", split="train")
    assert said(chats) == said(chats, column="messages") == ["<user>Why?\n<assistant>"]
    assert said(chats, column="prompt") == ["not this"]


@pytest.mark.parametrize("write", ["to_parquet", "to_csv", "to_json"])
def test_data_files_of_other_formats_are_read_too(tmp_path: Path, write: str) -> None:
    place = tmp_path / "set"
    place.mkdir()
    rows = datasets.Dataset.from_list([{"prompt": "Why?"}, {"prompt": "How?"}])
    getattr(rows, write)(place / f"validation.{write.removeprefix('to_')}")
    assert said(DatasetSource(folder=place, split="validation")) == ["Why?", "How?"]


def test_a_changed_file_is_read_anew_and_has_another_hash_even_at_the_same_time(folder: Path) -> None:
    file = folder / "other.jsonl"
    source = text(local(folder, config="other"), column="question")
    before, hashes, time = said(local(folder, config="other"), column="question"), text_hashes([source]), file.stat()
    file.write_text('{"question": "Changed?"}\n', encoding="utf-8")
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert before == ["Another?"]
    assert said(local(folder, config="other"), column="question") == ["Changed?"]
    assert text_hashes([source]) != hashes


def test_the_same_folder_elsewhere_is_the_same_data_set(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert identity_of(local(folder)) == identity_of(local(tmp_path / "copy"))
    assert identity_of(local(folder)) != identity_of(local(folder, config="other"))


# The Hub


def cached(folder: Path, cache: Path, commit: str) -> None:
    """Put a data set into the cache as a download of that commit leaves it."""
    builder = datasets.load_dataset_builder(str(folder), "main", cache_dir=str(cache / "built"))
    builder.download_and_prepare()
    shutil.copytree(builder.cache_dir, cache / "owner___asked" / "main" / "0.0.0" / commit)


def test_a_data_set_of_the_hub_that_was_fetched_before_is_read_without_a_connection(
    folder: Path, hub_cache: Path
) -> None:
    cached(folder, hub_cache, COMMIT)
    assert said(of_the_hub(), column="question") == [one["question"] for one in QUESTIONS]


def test_a_copy_of_another_commit_is_not_taken_for_the_one_that_is_named(folder: Path, hub_cache: Path) -> None:
    cached(folder, hub_cache, "f" * 40)
    error = refused(of_the_hub(), column="question")
    assert error.cause.startswith(
        "data set owner/asked (main, test) cannot be read: the copy in the cache is of commit"
    )
    assert "`dataset.revision`" in error.remedy


def test_a_data_set_that_cannot_be_fetched_says_what_to_check(hub_cache: Path) -> None:
    error = refused(of_the_hub(), column="question")
    assert error.cause == (
        "data set owner/asked (main, test) cannot be read: "
        "Couldn't reach 'owner/asked' on the Hub (OfflineModeIsEnabled)"
    )
    assert error.remedy == "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then run again"


@pytest.mark.parametrize("message", ["Dataset 'owner/asked' is a gated dataset on the Hub.", "It doesn't exist."])
def test_a_data_set_that_is_gated_or_not_there_says_who_may_see_it(
    monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def not_found(*_arguments: Any, **_options: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError(message)

    monkeypatch.setattr(datasets, "load_dataset_builder", not_found)
    error = refused(of_the_hub())
    assert error.cause == f"data set owner/asked (main, test) cannot be read: {message}"
    assert "HF_TOKEN" in error.remedy


def test_name_commit_configuration_and_split_decide_what_a_hub_data_set_holds() -> None:
    same = text_hashes([text(of_the_hub()), text(of_the_hub(name="Owner/Asked"), name="other", column="q")])
    others = text_hashes(
        text(of_the_hub(**change))
        for change in ({"name": "owner/else"}, {"revision": "f" * 40}, {"config": None}, {"split": "train"})
    )
    assert same[0] == same[1]
    assert len({*same, *others}) == 5


# Mistakes


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = refused(local(tmp_path / "nowhere"))
    assert error.cause == f"data set folder {tmp_path / 'nowhere'} does not exist"
    with pytest.raises(BadInput, match="does not exist"):
        text_hashes([text(local(tmp_path / "nowhere"))])


@pytest.mark.parametrize(
    ("changes", "cause", "remedy"),
    [
        ({"split": "train"}, "has no such split; it has test", "`dataset.split`"),
        ({"config": "none"}, "BuilderConfig 'none' not found. Available: ['main', 'other']", "`dataset`"),
        ({"config": None}, "Config name is missing. Please pick one among the available configs", "`dataset`"),
    ],
)
def test_a_split_or_configuration_that_is_not_there_comes_with_those_that_are(
    folder: Path, changes: dict[str, Any], cause: str, remedy: str
) -> None:
    error = refused(local(folder, **changes))
    assert error.cause.startswith(f"data set {folder} (")
    assert cause in error.cause
    assert remedy in error.remedy


def test_a_missing_column_comes_with_the_row_and_the_columns_that_are_there(folder: Path) -> None:
    where = f"data set {folder} (main, test), row 1: "
    assert refused(local(folder)).cause == where + "no text in `prompt`; it has question, choices"
    assert refused(local(folder), column="q").cause == where + "no text in `q`; it has question, choices"
    error = refused(local(folder), template="{question} {options}")
    assert error.cause == where + "no column `options`; it has question, choices"
    assert "`template`" in error.remedy


def test_a_list_is_no_chat_and_no_text(folder: Path) -> None:
    error = refused(local(folder), column="choices")
    assert "row 1: `choices` is not a list of turns" in error.cause
    assert "`template`" in error.remedy


@pytest.mark.parametrize(
    ("file", "content", "cause"),
    [
        ("test.jsonl", '{"question":\n', "JSON parse error"),
        ("test.parquet", "no parquet", "cannot be read: "),
        ("test.pkl", "no pickle is ever opened", "No (supported) data files found"),
        ("README.md", "---\nconfigs: [\n---\n", "cannot be read: "),
    ],
)
def test_files_that_are_no_data_are_refused(tmp_path: Path, file: str, content: str, cause: str) -> None:
    place = tmp_path / "broken"
    place.mkdir()
    (place / file).write_text(content, encoding="utf-8")
    error = refused(DatasetSource(folder=place, split="test"))
    assert error.cause.startswith(f"data set {place} (test) cannot be read: ")
    assert cause in error.cause


def test_a_loading_script_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (folder / "asked.py").write_text(f"open({str(trace)!r}, 'w')", encoding="utf-8")
    error = refused(local(folder))
    assert "scripts are no longer supported" in error.cause
    assert "never run" in error.remedy
    assert not trace.exists()


def test_nothing_is_left_behind_and_no_progress_is_shown(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with opened(local(folder)) as data_set:
        [file] = {Path(entry["filename"]) for entry in data_set.cache_files}
        assert file.is_file()
    assert not file.exists()
    assert capfd.readouterr() == ("", "")
