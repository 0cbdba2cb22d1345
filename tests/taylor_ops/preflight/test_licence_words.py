"""A licence that a source states comes from others, and is shown on a terminal: it does not steer it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelInfo

from taylor_ops.preflight.known_source import _licence_of_the_card, _stated_by_the_hub

EVIL = "mit\x1b]0;owned\x07"
SHOWN = "mit\\x1b]0;owned\\x07"


def test_a_licence_of_the_hub_does_not_steer_a_terminal() -> None:
    info = ModelInfo(id="org/tiny", private=False, gated=False, cardData={"license": EVIL}, tags=[], siblings=[])
    assert _stated_by_the_hub(info, ()) == ("public", SHOWN, ())


def test_a_licence_of_a_card_does_not_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text('---\nlicense: "mit\\x1b]0;owned\\a"\n---\n')
    assert _licence_of_the_card(tmp_path) == SHOWN
