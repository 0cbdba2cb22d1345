"""What whoever waited for a release reads of it in a few lines."""

from __future__ import annotations

from taylor_ops.publishing.record import Published
from taylor_ops.releases.headlines import outcome
from tests.support import release_example as example


def test_an_outcome_has_three_figures_and_two_places() -> None:
    attacks = example.audit(example.attack(attack="linear", recovered_1pct=0.25), example.attack())
    assert outcome(example.record(audit=attacks), "/a/hub", "/a/report.html") == [
        "tiny-taylor 1.2.0 is published: /a/hub",
        "slowdown 2.97 (95 % of loadings 2.92 to 3.05, target 3)",
        "tokens equal on 47 of 48 prompts",
        "an attacker recovers over 99.99 % of the weights, errors under 1 % (rank_one)",
        "report: /a/report.html",
    ]


def test_a_release_that_nobody_attacked_and_that_waits_for_a_review_says_so() -> None:
    review = Published(
        target="hub",
        repo_id="example-org/Tiny-Taylor",
        version="1.2.0",
        path="https://huggingface.co/example-org/Tiny-Taylor/discussions/3",
        unchanged=False,
        pull_request=3,
    )
    lines = outcome(example.record(audit=example.audit(skipped=True), published=review), review.path, "report.html")
    assert lines[0] == f"tiny-taylor 1.2.0 is left for review: {review.path}"
    assert lines[3] == "no attack was run"
