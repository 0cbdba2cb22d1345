"""What the terminal shows at the end of a run."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from flows.commands.tables import summary
from taylor_ops.releases.record import StageCost
from tests.support import release_example as example


def shown(**changes: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=160).print(summary(example.record(**changes)))
    return stream.getvalue()


def row(text: str, *cells: str) -> list[str]:
    """The cells of the one row that begins with `cells`."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines()]
    found = [row for row in rows if tuple(row[: len(cells)]) == cells]
    assert len(found) == 1, text
    return found[0][len(cells) :]


def test_it_shows_what_was_released_and_where_it_is() -> None:
    text = shown()
    assert row(text, "neurons protected") == ["18,432 of 18,432 (100 %)"]
    assert row(text, "slowdown") == ["2.97 (95 % of loadings 2.92 to 3.05)"]
    assert row(text, "target") == ["3 within 10 %"]
    assert row(text, "bundle") == ["bundle/, 1.45 GB (original 538.1 MB)"]
    assert row(text, "published") == ["example-org/Tiny-Taylor 1.2.0 in hub/example-org/Tiny-Taylor/1.2.0"]


def test_the_bundle_stands_beside_the_floor_for_each_data_set() -> None:
    text = shown()
    assert row(text, "gsm8k", "bundle") == ["23 of 24", "1,513", "2.3e-8", "2.1e-6", "99.93 %"]
    assert row(text, "gsm8k", "noise floor") == ["22 of 24", "1,490", "6.1e-9", "5.5e-7", "99.87 %"]


def test_stages_show_their_cost_and_whether_their_result_was_reused() -> None:
    stages = {
        "capture": StageCost(seconds=12.34, peak_rss_bytes=1_234_567_890, cached=False),
        "convert": StageCost(seconds=0.02, peak_rss_bytes=200_000_000, cached=True),
    }
    text = shown(stages=stages)
    assert row(text, "capture") == ["12.3", "1,235", "made"]
    assert row(text, "convert") == ["0.0", "200", "reused"]


def test_the_audit_shows_what_was_recovered() -> None:
    assert row(shown(), "rank_one") == ["over 99.99 %", "98.12 %", "0.999999", "0.998214", "14.3"]


def test_what_an_attack_rebuilt_and_what_it_could_not_tell_is_shown() -> None:
    made = example.attack(attack="collapse", rebuilt=example.rebuilt())
    text = shown(audit=example.audit(made, example.attack(under_determined="9 samples for 48 unknowns")))
    assert "23 of 24 │  4.1e-9 │ 1.03 (95 % interval 1.01 to 1.05)" in text
    assert "rank_one is under-determined: 9 samples for 48 unknowns" in text
    assert "Rebuilt models" not in shown()


def test_a_skipped_audit_is_said() -> None:
    text = shown(audit=example.audit(skipped=True))
    assert "Audit skipped: no attack was run against this release" in text
    assert "recovered" not in text


def test_an_unchanged_publication_is_said() -> None:
    published = example.record().published.model_copy(update={"unchanged": True})
    assert "already there with the same bytes" in shown(published=published)


@pytest.mark.parametrize("name", ["[red]a[/red]", "[/]", "a[b"])
def test_brackets_in_a_name_are_no_markup(name: str) -> None:
    data_set = example.exactness().data_sets[0].model_copy(update={"name": name})
    assert name in shown(exactness=example.exactness(data_set))


def test_values_that_are_not_finite_are_shown_as_such() -> None:
    broken = example.trial(300_000, 3.0, math.nan).model_copy(update={"ci95": (math.nan, math.inf)})
    assert row(shown(latency=example.latency(broken)), "slowdown") == ["NaN (95 % of loadings NaN to infinite)"]
