"""What is public excuses names and addresses, and neither places nor secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from taylor_ops.leaked_texts import Machine, leak_in

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
