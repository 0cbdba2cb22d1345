"""A release in Markdown with everything inside, and the card without what lies beside it."""

from __future__ import annotations

import re

from taylor_ops.bundle.card import render_card
from taylor_ops.releases.gates import gates, gates_listed
from taylor_ops.releases.markdown import card_in_markdown, release_in_markdown, report_in_markdown, without_pictures
from taylor_ops.releases.report import plots
from tests.support import release_example as example


def test_a_report_holds_its_places_and_plots_and_needs_no_other_file() -> None:
    record = example.record()
    drawn = plots(record)
    report = report_in_markdown(record, {"bundle": "/a/hub/org/tiny/1.2.0"}, drawn)
    assert report.splitlines()[:3] == release_in_markdown(record).splitlines()[:3]
    assert "bundle:\n\n```\n/a/hub/org/tiny/1.2.0\n```\n" in report
    pictures = re.findall(r"!\[(.*?)\]\((.*?)\)", report)
    assert [title for title, _ in pictures] == [plot.title for plot in drawn]
    assert all(address.startswith("data:image/svg+xml;base64,") for _, address in pictures)


def test_a_summary_of_a_job_has_everything_but_the_pictures() -> None:
    record = example.record()
    report = report_in_markdown(record, {"bundle": "/a/hub"}, plots(record))
    said = without_pictures(report)
    assert "data:image" not in said
    assert gates_listed(gates(record)) in said
    assert said.endswith("```\n/a/hub\n```")
    assert without_pictures(said) == said


def test_the_text_of_a_card_has_no_metadata_no_picture_and_no_fold() -> None:
    card = render_card(example.statements(), example.config())
    text = card_in_markdown(card)
    assert text.startswith("# tiny-taylor 1.2.0\n")
    assert "![" not in text
    assert "<" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert "**Each attack**\n\n| Attack |" in text
    assert "\n\n\n" not in text
    assert "\n- **Slower**: 2.97 times as long per token as the original, as measured on Example CPU 7" in text
    # The page breaks a paragraph wherever its text does.
    assert "Without this argument loading fails on purpose, because no stock class can use these weights.\n" in text
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer\n\nrepo = " in text
