"""How the command `doctor` asks: whatever a probe does, there is an answer, in time, on one line, without a secret."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event

from taylor_ops.errors import WorkFailed
from taylor_ops.masking import note_secret
from taylor_ops.preflight.probed import Probed, probed

LONG = 60.0


def test_the_answer_of_a_probe_is_passed_on() -> None:
    found = Probed(what="disk", state="lacking", found="full", remedy="free some")
    assert probed("disk", lambda: found, LONG) == found


def test_a_probe_that_never_answers_is_a_warning() -> None:
    never = Event()

    def wait() -> Probed:
        never.wait()
        raise AssertionError

    found = probed("Hub", wait, 0.01)
    never.set()
    assert (found.what, found.state, found.found) == ("Hub", "warning", "no answer within 0.01 seconds")
    assert found.remedy


def test_a_probe_that_fails_is_a_warning_with_its_cause() -> None:
    def refused() -> Probed:
        raise WorkFailed("the server answers with status 500", "see its log")

    found = probed("pool", refused, LONG)
    assert (found.state, found.found, found.remedy) == ("warning", "the server answers with status 500", "see its log")


def test_a_probe_with_a_mistake_is_a_warning_and_stays_on_one_line() -> None:
    def broken() -> Probed:
        raise KeyError("a\nb\x1b[31m")

    found = probed("token", broken, LONG)
    assert found.state == "warning"
    assert "KeyError" in found.found
    assert "\n" not in found.found
    assert "\x1b" not in found.found


def test_nothing_that_is_found_holds_a_secret() -> None:
    secret = note_secret("tr-secret-of-the-doctor")
    found = probed("x", lambda: Probed(what="x", state="fine", found=f"a {secret}", remedy=f"b {secret}"), LONG)
    assert secret not in found.model_dump_json()

    def broken() -> Probed:
        raise ValueError(secret)

    assert secret not in probed("x", broken, LONG).model_dump_json()


def test_a_probe_sees_the_settings_of_whoever_asks() -> None:
    setting: ContextVar[str] = ContextVar("setting", default="none")
    setting.set("mine")
    assert probed("x", lambda: Probed(what="x", state="fine", found=setting.get()), LONG).found == "mine"
