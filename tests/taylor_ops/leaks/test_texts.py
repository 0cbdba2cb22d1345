"""What gives a machine away is found however it is written; what is public excuses neither places nor secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taylor_ops.leaks.texts import Machine, leak_in, this_machine

MACHINE = Machine("kimberley", "build-host-7", (Path("/data/kimberley/releases"),))
TOKEN = "hf_" + "a" * 34


@pytest.mark.parametrize(
    ("content", "public"),
    [
        ("kept in /home/bob/models", ["bob"]),
        ("kept in /data/kimberley/releases/tiny", ["kimberley"]),
        (f"approved {TOKEN}", [f"approved {TOKEN}"]),
        ("kept in /home/acme/llama/weights", ["acme/llama"]),
        ("made by kimberley", ["k"]),
    ],
)
def test_a_public_text_hides_no_place_secret_or_name_around_it(content: str, public: list[str]) -> None:
    assert leak_in("taylor_release.json", content.encode(), MACHINE, public, copied=False) is not None


def test_a_person_may_be_named_in_text_and_in_json() -> None:
    said = 'Ann "A." Kimberley <ann@example.org>'
    for content in (f"approved by {said}", json.dumps({"by": said})):
        assert leak_in("taylor_release.json", content.encode(), MACHINE, [said], copied=False) is None
        assert leak_in("taylor_release.json", content.encode(), MACHINE, [], copied=False) is not None


def escaped(text: str) -> str:
    """A text as JSON may write it: every letter by its number."""
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("/home/bob/models", "the path /home/bob"),
        ("/data/kimberley/releases/tiny", "the path /data/kimberley/releases of this machine"),
        (TOKEN, "a secret (Hugging Face token)"),
        ("kimberley", "the user name `kimberley`"),
        ("ann@example.org", "the e-mail address ann@example.org"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_json_writes_by_numbers_is_read(said: str, named: str, whole: bool) -> None:
    written = escaped(said) if whole else escaped(said[:2]) + said[2:]
    assert json.loads(f'"{written}"') == said
    content = f'{{\n  "from": "{written}"\n}}\n'
    found = leak_in("config.json", content.encode(), MACHINE, [], copied=False)
    assert found is not None
    assert found.startswith(named)
    assert found.endswith("in line 2")


def test_a_public_text_is_known_by_numbers_too() -> None:
    said = "Zoë 🙂 <zoe@example.org>"
    for content in (json.dumps({"by": said}), f'{{"by": "{escaped(said)}"}}'):
        assert leak_in("taylor_release.json", content.encode(), MACHINE, [said], copied=False) is None
        assert leak_in("taylor_release.json", content.encode(), MACHINE, [], copied=False) is not None


def test_every_secret_of_the_process_and_those_it_is_given_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAYLOR_RELEASE_KEY_PASSWORD", 'open "sesame"')
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "operator:correct-horse")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "admin:admin")
    machine = this_machine(secrets=["token-of-a-block"])
    for said in ('open "sesame"', "correct-horse", "operator:correct-horse", "token-of-a-block"):
        for content in (said, json.dumps({"said": said})):
            found = leak_in("config.json", content.encode(), machine, [], copied=False)
            assert found == "a token that is set on this machine"
    assert leak_in("README.md", b"the admin of a correct horse-race", machine, [], copied=False) is None


def test_a_password_that_is_a_word_is_not_found_in_the_vocabulary_of_the_original() -> None:
    machine = Machine("kimberley", "build-host-7", (), ("sesame", "a-token-of-many-letters"))
    for word, copied, found in (
        ("sesame", True, False),
        ("sesame", False, True),
        ("a-token-of-many-letters", True, True),
    ):
        content = json.dumps({word: 0}).encode()
        assert (leak_in("vocab.json", content, machine, [], copied) is not None) == found
