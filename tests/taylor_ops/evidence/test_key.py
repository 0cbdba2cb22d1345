"""Where the key and the recipients come from, and what is refused with which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from taylor_ops.config_file.read import read
from taylor_ops.errors import BadInput
from taylor_ops.evidence.key import Key, read_key
from taylor_ops.evidence.recipients import Recipient, read_recipients
from tests.support.config_example import VALID, VALID_LINES, errors_of, written

SECRET = "0123456789abcdef-and-more"


def test_a_key_comes_from_a_file_or_an_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(SECRET + "\n")
    monkeypatch.setenv("OWNERS_KEY", SECRET)
    one, other = read_key(str(tmp_path / "key")), read_key("OWNERS_KEY")
    assert one.stream(32, "purpose") == other.stream(32, "purpose") == Key(SECRET.encode()).stream(32, "purpose")
    assert one.stream(32, "purpose") != one.stream(32, "another")


def test_a_key_in_an_environment_variable_may_be_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = bytes(range(0xF0, 0x100)) + b"\x80 and more"
    (tmp_path / "key").write_bytes(secret)
    monkeypatch.setenv("OWNERS_KEY", os.fsdecode(secret))
    one, other = read_key(str(tmp_path / "key")), read_key("OWNERS_KEY")
    assert one.stream(32, "purpose") == other.stream(32, "purpose")


def test_a_key_does_not_show_itself() -> None:
    key = Key(SECRET.encode())
    assert SECRET not in f"{key} {key!r} {key.name} {[key]}"
    assert len(key.name) == 16
    assert key.name != Key(b"another key of some length").name


@pytest.mark.parametrize(
    ("place", "cause"),
    [
        (
            "NO_SUCH_VARIABLE",
            "variable NO_SUCH_VARIABLE, which should hold the key of the evidence, is not set",
        ),
        ("{}/nowhere", "nowhere, the key of the evidence, cannot be read: No such file or directory"),
        ("{}/short", "short holds 5 bytes, too few for a key; it must be 16 or more"),
        ("{}", "cannot be read: Is a directory"),
    ],
)
def test_a_place_without_a_key_is_bad_input(tmp_path: Path, place: str, cause: str) -> None:
    (tmp_path / "short").write_text("guess\n")
    with pytest.raises(BadInput) as caught:
        read_key(place.format(tmp_path))
    assert cause in caught.value.cause
    assert "openssl rand -hex 32" in caught.value.remedy


# The config


def test_the_section_takes_a_file_beside_the_config_or_a_variable(tmp_path: Path) -> None:
    assert read(written(tmp_path, VALID)).config.evidence is None
    for key, place in (("owner.key", str(tmp_path / "owner.key")), ("OWNERS_KEY", "OWNERS_KEY"), ("/k", "/k")):
        config = read(written(tmp_path, VALID + f"evidence: {{recipient: acme, key: {key}}}\n")).config
        assert config.evidence is not None
        assert config.evidence.key == place


def test_a_recipient_that_is_no_name_and_a_strength_that_would_show_are_refused(tmp_path: Path) -> None:
    text = VALID + "evidence:\n  recipient: two words\n  key: k\n  strength: 0.5\n"
    errors = errors_of(tmp_path, text)
    assert [line.split(": ")[:2] for line in errors] == [
        [f"release.yaml:{VALID_LINES + 2}", "evidence.recipient"],
        [f"release.yaml:{VALID_LINES + 4}", "evidence.strength"],
    ]
    assert "release.yaml:" in errors_of(tmp_path, VALID + "evidence: {recipient: acme}\n")[0]


# The file of recipients


def test_recipients_have_a_name_and_a_version_each(tmp_path: Path) -> None:
    file = tmp_path / "recipients"
    file.write_text("# who got it\nacme 1.0.0\n\nbeta-2 1.0.1  # on paper\ngamma\nacme 1.0.0\n")
    assert read_recipients(file, "2.0.0") == [
        Recipient("acme", "1.0.0"),
        Recipient("beta-2", "1.0.1"),
        Recipient("gamma", "2.0.0"),
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("acme 1.0.0\nbeta\n", ":2: `beta` has no version"),
        ("acme 1.0.0 x\n", ":1: `acme 1.0.0 x` is no recipient"),
        ("/acme 1.0.0\n", ":1: `/acme 1.0.0` is no recipient"),
        ("# none\n", "names no recipient"),
    ],
)
def test_a_line_that_is_no_recipient_is_named(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "recipients").write_text(text)
    with pytest.raises(BadInput) as caught:
        read_recipients(tmp_path / "recipients")
    assert cause in caught.value.cause


def test_a_file_of_recipients_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_recipients(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["der Schlüssel des Eigentümers", "\xff\xfe binary, and long enough"])
def test_the_gate_is_given_the_text_of_a_key_as_it_would_read_it_in_a_file(tmp_path: Path, text: str) -> None:
    place = tmp_path / "owner.key"
    place.write_bytes(text.encode("latin-1" if text.startswith("\xff") else "utf-8") + b"\n")
    assert read_key(str(place)).text == text
