"""Texts become prompts of one model, and a record that is not as documented is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from taylor_ops.config.texts import DatasetSource, TextSource
from taylor_ops.errors import BadInput
from taylor_ops.texts.prompts import prompts, sequences
from taylor_ops.texts.readers import shipped
from tests.support.tiny_models import tokenizer

TOKENIZER = tokenizer()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tests that run many times."""
    return tmp_path_factory.mktemp("scratch")


def jsonl(path: Path, *records: Any) -> Path:
    """A file with one JSON document a line."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def source(path: Path, **settings: Any) -> TextSource:
    return TextSource(**{"name": "mine", "file": path} | settings)


def said(path: Path, tokenizer: Any = TOKENIZER, **settings: Any) -> list[str]:
    """The prompts of a file as text."""
    return [tokenizer.decode(prompt.tokens) for prompt in prompts(source(path, **settings), tokenizer)]


def refused(path: Path, **settings: Any) -> BadInput:
    """The error about the prompts of a file."""
    with pytest.raises(BadInput) as caught:
        prompts(source(path, **settings), TOKENIZER)
    assert caught.value.exit_status == 2
    return caught.value


# Prompts


def test_prompts_come_from_the_named_field_in_the_order_of_the_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"question": "Why?", "answer": "So."}, {"question": "How?"})
    assert said(path, column="question") == ["Why?", "How?"]


def test_the_field_prompt_holds_the_text_where_no_other_is_named(tmp_path: Path) -> None:
    assert said(jsonl(tmp_path / "p.jsonl", {"prompt": "Why?"})) == ["Why?"]


def test_the_named_field_is_read_even_where_a_field_is_called_text(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"question": "Why?", "text": "a long passage"})
    assert said(path, column="question") == ["Why?"]


def test_ids_and_kinds_are_those_of_the_records_or_number_and_name_of_the_source(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": "a", "id": 70, "kind": "code"}, {"text": "b"})
    assert [(one.id, one.kind) for one in prompts(source(path), TOKENIZER)] == [("70", "code"), ("2", "mine")]


@pytest.mark.parametrize(("limit", "expected"), [(1, ["a"]), (2, ["a", "b"]), (9, ["a", "b", "c"])])
def test_a_limit_takes_so_many_from_the_start(tmp_path: Path, limit: int, expected: list[str]) -> None:
    path = jsonl(tmp_path / "p.jsonl", *({"text": text} for text in "abc"))
    assert said(path, limit=limit) == expected


def test_a_record_without_text_is_left_out_and_does_not_count(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": ""}, {"text": "a"}, {"text": "b"})
    assert said(path, limit=1) == ["a"]


def test_so_many_of_every_kind_are_taken_and_empty_ones_do_not_count(tmp_path: Path) -> None:
    of_kinds = [{"text": text, "kind": kind} for text, kind in ("ax", "bx", ("", "x"), "cy", "dx", "ey")]
    path = jsonl(tmp_path / "p.jsonl", *of_kinds, {"text": "f"}, {"text": "g", "kind": "y"}, {"text": "h"})
    assert said(path, per_kind=2) == ["a", "b", "c", "e", "f", "h"]
    assert said(path, per_kind=2, limit=4) == ["a", "b", "c", "e"]


def test_a_mistake_behind_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a"}\nnot JSON\n', encoding="utf-8")
    assert said(path, limit=1) == ["a"]


def test_a_text_file_is_one_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text('First line.\n{"text": "no record"}\n', encoding="utf-8")
    assert said(path) == ['First line.\n{"text": "no record"}\n']


def test_a_shipped_text_needs_no_file() -> None:
    records = shipped("held_out").read_text(encoding="utf-8").splitlines()
    taken = prompts(TextSource(name="project", builtin="held_out", limit=3), TOKENIZER)
    assert [one.id for one in taken] == [json.loads(record)["id"] for record in records[:3]]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_character_that_python_takes_for_a_line_end_does_not_end_a_record(tmp_path: Path, separator: str) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": f"one{separator}line"}, {"text": "next"})
    assert separator in path.read_text(encoding="utf-8")
    assert said(path) == [f"one{separator}line", "next"]


def test_blank_lines_and_carriage_returns_between_records_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'\r\n{"text": "a"}\r\n\r\n  \n{"text": "b"}')
    assert said(path) == ["a", "b"]


@settings(deadline=None)
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_any_texts_come_back_as_they_were_written(scratch: Path, texts: list[str]) -> None:
    path = jsonl(scratch / "any.jsonl", *({"text": text} for text in texts))
    assert said(path) == texts


# Chats


def test_a_text_is_put_into_one_user_turn_where_the_config_says_so(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"prompt": "Why?"}, {"text": "How?"})
    assert said(path, chat_template=True) == ["<user>Why?\n<assistant>", "<user>How?\n<assistant>"]
    assert said(path) == ["Why?", "How?"]


def test_a_text_file_is_put_into_one_user_turn_too(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Why?", encoding="utf-8")
    assert said(tmp_path / "p.txt", chat_template=True) == ["<user>Why?\n<assistant>"]


def test_messages_go_through_the_chat_template_and_only_an_open_turn_asks_for_an_answer(tmp_path: Path) -> None:
    chatty = tokenizer()
    chatty.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[answer]{% endif %}"
    )
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    answered = [*asked, {"role": "assistant", "content": "So."}]
    path = jsonl(tmp_path / "p.jsonl", {"messages": asked}, {"messages": answered})
    assert said(path, chatty) == ["[system]Be brief.[user]Why?[answer]", "[system]Be brief.[user]Why?[assistant]So."]


def test_the_chat_template_alone_says_which_special_tokens_a_chat_opens_with(tmp_path: Path) -> None:
    opening = tokenizer()
    opening.chat_template = "<s>{% for m in messages %}{{ m.content }}{% endfor %}"
    opening.add_bos_token = True
    path = jsonl(tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": "Why?"}]})
    [prompt] = prompts(source(path), opening)
    assert prompt.tokens.count(opening.bos_token_id) == 1


def test_messages_for_a_model_without_chat_template_are_joined_by_blank_lines(tmp_path: Path) -> None:
    plain = tokenizer()
    plain.chat_template = None
    path = jsonl(
        tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": "Hi."}, {"role": "user", "content": "Why?"}]}
    )
    assert said(path, plain) == ["Hi.\n\nWhy?"]


# Mistakes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not JSON", "Expecting value"),
        ('{"text": "cut', "Unterminated string"),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"answer": "So.", "question": "Why?"}', "no text in `prompt`; it has answer, question"),
        ('{"prompt": 7}', "no text in `prompt`; it has prompt"),
    ],
)
def test_a_line_that_is_not_as_documented_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"text": "a"}}\n\n{line}\n', encoding="utf-8")
    error = refused(path)
    assert error.cause.startswith(f"{path}:3: ")
    assert reason in error.cause
    assert "\n" not in error.cause


@pytest.mark.parametrize(
    "record",
    [
        {"text": 7},
        {"text": None},
        {"text": ["a", "b"]},
        {"messages": []},
        {"messages": None},
        {"messages": "Why?"},
        {"messages": ["Why?"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"content": "Why?"}]},
        {"messages": [{"role": "user", "content": 7}]},
    ],
)
def test_a_text_or_chat_of_another_form_is_named_with_its_line(tmp_path: Path, record: dict[str, Any]) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"text": "a"}, record)
    assert refused(path).cause.startswith(f"{path}:2: ")


def test_a_text_that_is_no_unicode_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a"}\n{"text": "half a pair: \\ud83d"}\n', encoding="utf-8")
    assert refused(path).cause.startswith(f"{path}:2: ")


def test_a_missing_field_says_how_to_name_another(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"question": "Why?"})
    error = refused(path, column="frage")
    assert "`frage`" in error.cause
    assert "question" in error.cause
    assert "`column`" in error.remedy


@pytest.mark.parametrize(
    ("file", "text"), [("p.jsonl", ""), ("p.jsonl", "\n\n"), ("p.jsonl", '{"text": ""}\n'), ("p.txt", "")]
)
def test_a_file_without_any_text_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    error = refused(tmp_path / file)
    assert error.cause == f"{tmp_path / file} holds no text"
    assert "`mine`" in error.remedy


def test_a_file_that_is_not_there_is_named_with_its_source(tmp_path: Path) -> None:
    error = refused(tmp_path / "p.jsonl")
    assert f"{tmp_path / 'p.jsonl'} does not exist" in error.cause
    assert "`mine`" in error.remedy


def test_a_file_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("für".encode("latin-1"))
    assert str(tmp_path / "p.txt") in refused(tmp_path / "p.txt").cause


# Parquet


def table(path: Path, **columns: list[Any]) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_the_rows_of_a_parquet_file_are_prompts_in_their_order(tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", question=["Why?", "How?"], choices=[["a", "b"], ["c"]])
    assert said(path, column="question") == ["Why?", "How?"]
    assert said(path, template="{question}\n{choices}") == ["Why?\na\nb", "How?\nc"]


def test_a_missing_column_of_a_parquet_file_comes_with_its_row_and_the_columns_that_are_there(tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", question=["Why?"], answer=["So."])
    assert refused(path).cause == f"{path}, row 1: no text in `prompt`; it has question, answer"
    assert refused(path, template="{frage}").cause == f"{path}, row 1: no column `frage`; it has question, answer"


def test_an_empty_cell_is_named_with_its_row(tmp_path: Path) -> None:
    path = table(tmp_path / "p.parquet", text=["a", None])
    assert refused(path).cause == f"{path}, row 2: no text in `text`; it has text"
    assert refused(path, template="{text}").cause.startswith(f"{path}, row 2: `text` holds NoneType; a template takes")


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b'{"text": "a"}\n'])
def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.parquet").write_bytes(content)
    error = refused(tmp_path / "p.parquet")
    assert error.cause.startswith(f"{tmp_path / 'p.parquet'} cannot be read: ")
    assert "\n" not in error.cause


# Templates


def test_a_template_says_what_the_text_of_a_line_is(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", {"q": "Why?", "messages": []}, {"q": "How?"})
    assert said(path, template="Q: {q}\nA:") == ["Q: Why?\nA:", "Q: How?\nA:"]
    assert said(path, template="{q}", chat_template=True, limit=1) == ["<user>Why?\n<assistant>"]


def test_a_line_without_a_column_of_the_template_is_named(tmp_path: Path) -> None:
    error = refused(jsonl(tmp_path / "p.jsonl", {"q": "Why?"}, {"a": "So."}), template="{q}")
    assert error.cause == f"{tmp_path / 'p.jsonl'}:2: no column `q`; it has a"
    assert "`template`" in error.remedy


# Seeds


def test_a_seed_draws_the_same_records_every_time_and_before_the_limit(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "p.jsonl", *({"text": str(number)} for number in range(10)))
    # Written out: another order would be another set of held-out prompts under the same config.
    assert said(path, seed=0) == ["7", "8", "1", "5", "3", "4", "2", "0", "9", "6"]
    assert said(path, seed=0, limit=3) == ["7", "8", "1"]
    assert said(path, seed=1, limit=3) != ["7", "8", "1"]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 30))
def test_any_seed_takes_every_record_once_and_names_it_by_its_place(scratch: Path, seed: int, count: int) -> None:
    path = jsonl(scratch / "seed.jsonl", *({"text": f"text {number}"} for number in range(1, count + 1)))
    taken = prompts(source(path, seed=seed), TOKENIZER)
    assert sorted(int(prompt.id) for prompt in taken) == list(range(1, count + 1))
    assert all(TOKENIZER.decode(prompt.tokens) == f"text {prompt.id}" for prompt in taken)


# Every format


def questions() -> list[dict[str, Any]]:
    """Records of a real data set where its file lies beside the repository, and else records of the same form."""
    real = Path(__file__).parents[4] / "shared" / "data" / "truthfulqa.jsonl"
    if real.is_file():
        return [json.loads(line) for line in real.read_text(encoding="utf-8").splitlines()]
    return [{"prompt": f"Is {n} even?", "best_answer": "Yes" if n % 2 == 0 else "No"} for n in range(300)]


def test_the_same_records_give_the_same_prompts_from_every_format(tmp_path: Path) -> None:
    records = questions()
    folder = tmp_path / "folder"
    folder.mkdir()
    written = jsonl(tmp_path / "p.jsonl", *records)
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "p.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(records), folder / "validation.parquet")
    choice = {"name": "mine", "template": "Q: {prompt}\nA: {best_answer}", "seed": 0, "limit": 40}
    of_lines, of_rows, of_folder = (
        prompts(TextSource(**choice, **origin), TOKENIZER)
        for origin in (
            {"file": written},
            {"file": tmp_path / "p.parquet"},
            {"dataset": DatasetSource(folder=folder, split="validation")},
        )
    )
    assert of_lines == of_rows == of_folder
    assert len(of_lines) == 40
    assert [prompt.id for prompt in of_lines] != [str(number) for number in range(1, 41)]


# Sequences


@settings(deadline=None)
@given(
    texts=st.lists(st.text("abcdef", min_size=1, max_size=30), min_size=1, max_size=6),
    tokens=st.integers(1, 100),
    length=st.integers(2, 40),
)
def test_sequences_are_the_joined_texts_cut_at_the_length_up_to_the_total(
    scratch: Path, texts: list[str], tokens: int, length: int
) -> None:
    half = len(texts) // 2
    sources = [
        source(jsonl(scratch / f"{name}.jsonl", *({"text": text} for text in some)), name=name)
        for name, some in (("one", texts[:half]), ("two", texts[half:]))
        if some
    ]
    joined = "".join(texts)[:tokens]
    assume(len(joined) > 1)
    cuts = sequences(tuple(sources), TOKENIZER, tokens, length)
    # A rest of one token has nothing to predict and is left out.
    rest = len(joined) % length == 1
    assert "".join(map(TOKENIZER.decode, cuts)) == joined[: len(joined) - rest]
    assert all(len(cut) == length for cut in cuts[:-1])
    assert all(1 < len(cut) <= length for cut in cuts)


def test_texts_of_a_single_token_are_named(tmp_path: Path) -> None:
    short = source(jsonl(tmp_path / "short.jsonl", {"text": "a"}), name="short")
    with pytest.raises(BadInput, match="fewer than two tokens") as caught:
        sequences((short,), TOKENIZER, 256, 128)
    assert str(tmp_path / "short.jsonl") in caught.value.cause
    assert "`short`" in caught.value.remedy
    other = source(jsonl(tmp_path / "other.jsonl", {"text": "b"}), name="other")
    assert len(sequences((short, other), TOKENIZER, 256, 128)) == 1
