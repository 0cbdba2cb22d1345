"""Secrets and control characters do not get into what is said."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text

from taylor_ops import masking
from taylor_ops.errors import BadInput
from taylor_ops.masking import mask_logs, masked, note_secret, printable
from taylor_ops.storage.record import Record

FORMS = [
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "hf_oauth_eyJ0b2.k-en_part",
    "hf_jwt_eyJhbGci-OiJIUzI1.NiIsInR5cCI6",
    "api_org_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "correct horse battery/staple+1",
]


class Answer(Record):
    said: str
    number: int


@pytest.fixture(autouse=True)
def no_other_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(masking, "_noted", set())
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a logger of any library writes while records are masked."""
    usual, stream = logging.getLogRecordFactory(), io.StringIO()
    logger, handler = logging.getLogger("a.library"), logging.StreamHandler(stream)
    logger.addHandler(handler)
    mask_logs()
    mask_logs()
    yield stream
    logging.setLogRecordFactory(usual)
    logger.removeHandler(handler)


@pytest.mark.parametrize("token", FORMS)
@pytest.mark.parametrize("place", ["variable", "file", "stored", "noted"])
def test_a_token_is_masked_whatever_its_form_and_place(
    token: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if place == "variable":
        monkeypatch.setenv("HF_TOKEN", f"{token}\n")
    elif place == "file":
        (tmp_path / "token").write_text(f"{token}\n")
    elif place == "stored":
        (tmp_path / "stored_tokens").write_text(f"[other]\nhf_token = {token}\nexpires_at = 1700000000\n")
    else:
        note_secret(token)
    error = BadInput(f"403: no rights for '{token}' since 1700000000", f"do not use {token}")
    assert error.cause == "403: no rights for '***' since 1700000000"
    assert error.remedy == "do not use ***"
    assert token not in repr(error)


def test_a_token_in_an_address_and_a_login_are_masked() -> None:
    note_secret("horse/staple+1")
    assert masked("GET /x?t=horse%2Fstaple%2B1") == "GET /x?t=***"
    assert masked("https://ann:pass@hub.example/x") == "https://***@hub.example/x"


@pytest.mark.parametrize("token", FORMS[:4])
def test_a_token_of_another_is_masked_by_its_form(token: str) -> None:
    assert masked(f"Bearer {token}") == "Bearer ***"


def test_words_stay() -> None:
    text = "hf_hub_download of org/hf_distilled at 0123456789abcdef into /data/hf_checkpoints: not valid (401)"
    assert masked(text) == text


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "model")
    assert masked("a model") == "a model"


def test_log_records_of_any_library_are_masked_with_their_tracebacks(log: io.StringIO) -> None:
    note_secret("correct-horse")
    logger = logging.getLogger("a.library")
    logger.warning("the Hub says %s", "correct-horse")
    logger.warning("the Hub says %d", "correct-horse")
    try:
        raise RuntimeError("no rights for correct-horse") from ValueError("correct-horse")
    except RuntimeError:
        logger.exception("stopped")
    said = log.getvalue()
    assert "correct-horse" not in said
    assert said.count("***") >= 4
    assert "RuntimeError: no rights for ***" in said


def test_a_log_record_without_secrets_keeps_its_arguments_and_its_traceback(log: io.StringIO) -> None:
    record = logging.getLogger("a.library").makeRecord("a.library", 30, "f", 1, "done: %d", (3,), None)
    assert record.args == (3,)
    try:
        raise RuntimeError("plain")
    except RuntimeError:
        logging.getLogger("a.library").exception("stopped")
    assert "RuntimeError: plain" in log.getvalue()


def test_a_record_on_disk_holds_no_secret(tmp_path: Path) -> None:
    note_secret('correct-"horse"\\')
    note_secret("12345678")
    Answer(said='you are correct-"horse"\\, é', number=12345678).write(tmp_path / "record.json")
    assert Answer.read(tmp_path / "record.json") == Answer(said="you are ***, é", number=12345678)


def test_a_record_without_secrets_is_written_as_it_is(tmp_path: Path) -> None:
    answer = Answer(said="of hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567, é", number=1)
    answer.write(tmp_path / "record.json")
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == answer.model_dump_json(indent=2) + "\n"


def test_a_terminal_obeys_no_control_character_of_an_error() -> None:
    shown = str(BadInput("file \x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egpj.exe is not listed", "one\ntwo"))
    assert shown == "file \\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\r\\u202egpj.exe is not listed\none\ntwo"
    assert printable("Zoë 模型\t😀\n") == "Zoë 模型\t😀\n"


def test_a_name_with_an_invisible_letter_does_not_look_like_another() -> None:
    assert str(BadInput("tensor m\ufeffo\u200bdel is missing", "fetch it")).startswith("tensor m\\ufeffo\\u200bdel")


@given(text())
def test_every_letter_that_is_said_can_be_seen(words: str) -> None:
    assert all(letter.isprintable() or letter in "\t\n" for letter in printable(words))
