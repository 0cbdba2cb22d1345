"""Files that are no config, and anything at all: a config or clean errors, never anything else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from taylor_ops.config_file.read import ConfigErrors, read
from tests.support.config_example import VALID, errors_of, written

# Files that are no config


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "1: the file is empty, must be a section with `name`, `version`, `source`, `card` and `publish`"),
        ("# only a comment\n", "1: the file is empty, must be a section with `name`,"),
        ("---\n", "1: the file is empty, must be a section with `name`,"),
        ("~\n", "1: the file is empty, must be a section with `name`,"),
        ("\n- name: x\n", "2: the file is a list, must be a section with `name`,"),
        ("*a", "1: is the alias '*a'; aliases are not supported"),
        ("!config\nname: x\n", "1: has the tag '!config'; tags are not supported"),
        ("just text", "1: the file is the text 'just text', must be a section with `name`,"),
        ("name: x\nseed: [1,\n", "2: not valid YAML: while parsing a flow node"),
        ("name: x\nversion: 1: 2\n", "2: not valid YAML: mapping values are not allowed here"),
        ("name: x\n\tseed: 1\n", "2: not valid YAML: "),
        ("name: x\n---\nname: y\n", "2: not valid YAML: expected a single document in the stream"),
        ('name: x\nseed: "\\UFFFFFFFF"\n', "2: not valid YAML: an escape or directive is out of range"),
        ("name: x\nseed: \x00\n", "2: not valid YAML: the control character U+0000 must not stand in it"),
        ("x: " + "[" * 2000, "1: not valid YAML: nested deeper than 32 levels"),
        (b"name: x\ncard: \xe9\n", "2: is not UTF-8 text; save the file as UTF-8"),
        (VALID.encode("utf-16"), "1: is not UTF-8 text; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_config_gives_one_clean_error(tmp_path: Path, text: str | bytes, error: str) -> None:
    [only] = errors_of(tmp_path, text)
    assert only.startswith(f"release.yaml:{error}")


def test_a_missing_file_a_folder_and_a_huge_file_are_bad_input(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * 1_000_001)
    for path, cause in [
        (tmp_path / "missing.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (huge, "is larger than 1000000 bytes; this is no release config"),
    ]:
        with pytest.raises(ConfigErrors) as caught:
            read(path)
        assert caught.value.lines == [f"{path}: {cause}"]


# Anything at all


JARGON = ("Input should", "value_error", "pydantic", "Value error", "HubSource", "Extra inputs", "Field required")

fragments = st.sampled_from(
    [
        *("name", "version", "source", "kind", "hub", "latency", "tolerance", "card", "license", "texts", "prompts"),
        *(
            ": ",
            ":",
            "\n",
            "\n  ",
            "\n- ",
            "- ",
            "  ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "? ",
            "|\n ",
            ">\n ",
            "---\n",
            "...\n",
        ),
        *("&a ", "*a ", "*b", "<<: ", "!!str ", "!x ", "!!set ", "%YAML 1.2\n", "%TAG ! x\n", "# c\n", "'", '"', "\\"),
        *("1", "1.0", "1e-4", ".inf", "-", "~", "no", "true", "0o7", "2024-01-01", "\t", "\r\n", "\u2028", "\x85", "é"),
        *('"\\ud800"', '"\\U00110000"', '"\\x1b"', "\ufeff", "\x07", VALID),
    ]
)
texts = st.lists(fragments, max_size=25).map("".join)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(["1.0.0", "a/b", "hub"])
)
names = st.sampled_from(
    ["kind", "name", "file", "dataset", "template", "builtin", "tolerance", "prompts", "texts", "license", "x"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        *("name", "version", "source", "source.kind", "source.revision", "latency.pairs", "calibration.texts"),
        *("exactness.prompts.0.dataset", "exactness.prompts.0.dataset.split", "exactness.prompts.0.template"),
        *("exactness.prompts.0.file", "exactness.prompts", "audit.attacks", "card", "card.tags", "publish", "extra"),
        *("conversion.order", "conversion.tolerance", "exactness.prompts.7", "name.x", "a..b", "source.x.y"),
    ]
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def check_answer(path: Path, overrides: dict[str, str]) -> None:
    """Reading gives a config whose document says the same again, or errors that stand in the file, a line each."""
    try:
        loaded = read(path, overrides)
    except ConfigErrors as error:
        lines = error.lines
    else:
        again = path.with_name("again.yaml")
        again.write_text(json.dumps(loaded.document, allow_nan=False), encoding="utf-8")
        assert read(again).config == loaded.config
        return
    assert lines
    # YAML counts more characters than "\n" as ends of lines, as `splitlines` does.
    last = max(1, len(path.read_bytes().decode("utf-8", "replace").splitlines()))
    for line in lines:
        assert line.isprintable()
        assert not any(word in line for word in JARGON)
        place = re.match(rf"{re.escape(str(path))}:(\d+): |--set ", line)
        assert place is not None, line
        assert place[1] is None or 1 <= int(place[1]) <= last


@settings(deadline=None, max_examples=150)
@given(text=texts)
def test_any_text_is_a_config_or_has_errors_in_its_lines(folder: Path, text: str) -> None:
    check_answer(written(folder, text), {})


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=40))
def test_any_bytes_are_a_config_or_have_errors_in_their_lines(folder: Path, data: bytes) -> None:
    check_answer(written(folder, data), {})


@settings(deadline=None, max_examples=150)
@given(changes=st.lists(st.tuples(keys, values), max_size=4), removed=st.sets(st.sampled_from(["name", "card"])))
def test_any_changed_config_is_valid_or_has_errors_in_its_lines(
    folder: Path, changes: list[tuple[str, Any]], removed: set[str]
) -> None:
    document = yaml.safe_load(VALID)
    for key, value in changes:
        *parents, last = key.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {}) if isinstance(target, dict) else {}
        if isinstance(target, dict):
            target[last] = value
    for key in removed:
        document.pop(key, None)
    check_answer(written(folder, yaml.safe_dump(document, allow_unicode=True, sort_keys=False)), {})


@settings(deadline=None, max_examples=150)
@given(overrides=st.dictionaries(keys | st.text("ab.0", max_size=5), texts | values.map(json.dumps), max_size=4))
def test_any_override_is_valid_or_has_errors_that_name_it(folder: Path, overrides: dict[str, str]) -> None:
    check_answer(written(folder, VALID), overrides)
