"""A template holds the columns that it names, and refuses everything else that `str.format` would follow."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylor_ops.config.texts import columns_of, filled, parts_of

words = st.text(st.characters(exclude_characters="{}", exclude_categories=("Cs",)), max_size=8)
column_names = st.text(st.characters(exclude_characters="{}.[]!:", exclude_categories=("Cs",)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("Question: {question}\nAnswer:", {"question": "Why?", "answer": "So."}, "Question: Why?\nAnswer:"),
        ("{a}{b}{a}", {"a": "x", "b": "y"}, "xyx"),
        ("{choices}", {"choices": ["one", "two"]}, "one\ntwo"),
        ("{choices}!", {"choices": []}, "!"),
        ("{year} {share}", {"year": 1999, "share": 0.5}, "1999 0.5"),
        ('{{"q": "{q}"}}', {"q": "{not_a_column}"}, '{"q": "{not_a_column}"}'),
        ("{the question}", {"the question": "Why?"}, "Why?"),
    ],
)
def test_columns_are_put_in_place_of_their_names(template: str, values: dict[str, Any], text: str) -> None:
    assert filled(template, values) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("no column", "names no column in braces"),
        ("", "names no column in braces"),
        ("{{a}}", "names no column in braces"),
        ("{}", "has '' in braces, which must be the name of a column"),
        ("{a.__class__}", "has 'a.__class__' in braces, which must be the name of a column, without dot or bracket"),
        ("{a[0]}", "has 'a[0]' in braces"),
        ("{a!r}", "has a format or conversion after 'a'"),
        ("{a:>30}", "has a format or conversion after 'a'"),
        ("{a:{b}}", "has a format or conversion after 'a'"),
        ("{a", "is no template: expected '}' before end of string"),
        ("a} {b}", "is no template: Single '}' encountered in format string"),
    ],
)
def test_other_forms_are_refused_with_the_reason(template: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parts_of(template)
    assert str(caught.value).startswith(reason)


@pytest.mark.parametrize("value", [None, {"text": ["a"]}, [["a"]], ["a", None], b"bytes"])
def test_a_value_that_is_no_text_is_named_with_its_column(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`q` holds .*; a template takes text, numbers and lists of them"):
        filled("{q}", {"q": value})


@given(st.lists(st.tuples(words, column_names), min_size=1, max_size=4), words, st.data())
def test_any_columns_with_any_text_around_them_are_found_and_filled(
    parts: list[tuple[str, str]], end: str, data: st.DataObject
) -> None:
    template = "".join(text + "{" + column + "}" for text, column in parts) + end
    values = {column: data.draw(st.text(max_size=5)) for _text, column in parts}
    assert columns_of(template) == [column for _text, column in parts]
    assert filled(template, values) == "".join(text + values[column] for text, column in parts) + end


@given(st.text("{}ab.[]!: ", max_size=12))
def test_any_template_that_is_taken_is_filled_as_python_would(template: str) -> None:
    with contextlib.suppress(ValueError):
        values = dict.fromkeys(columns_of(template), "x")
        assert filled(template, values) == template.format_map(values)
