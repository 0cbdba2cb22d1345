"""Texts in files that other systems wrote: byte order marks, line ends of Windows, other encodings."""

from __future__ import annotations

from pathlib import Path

import pytest

from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput
from taylor_ops.texts.readers import records


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_a_text_is_the_same_with_a_byte_order_mark_and_with_line_ends_of_windows(
    tmp_path: Path, mark: bytes, end: bytes
) -> None:
    lines, text = tmp_path / "asked.jsonl", tmp_path / "running.txt"
    # Two files that were joined: the second mark stands at the start of a line.
    lines.write_bytes(mark + b'{"prompt": "one"}' + end + mark + b'{"prompt": "two"}' + end)
    text.write_bytes(mark + b"one" + end + b"two" + end)
    found = [record.columns for file in (lines, text) for record in records(TextSource(name="t", file=file))]
    assert found == [{"prompt": "one"}, {"prompt": "two"}, {"text": "one\ntwo\n"}]


def test_a_text_of_another_encoding_is_refused_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text('{"prompt": "one"}', encoding="utf-16")
    with pytest.raises(BadInput, match="no UTF-8 text") as caught:
        list(records(TextSource(name="t", file=file)))
    assert "save the file as UTF-8" in caught.value.remedy
