"""What a report is: one file that loads nothing, shows the record, and survives whatever the record holds."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from taylor_ops.exactness.record import Divergence
from taylor_ops.presentation.latency_plots import PlottedTrial, prediction
from taylor_ops.releases.record import ReleaseRecord, StageCost
from taylor_ops.releases.report import duration, write_report
from taylor_ops.verification.record import Verified
from tests.support import release_example as example
from tests.support.html_page import Page as _Page
from tests.support.html_page import drawn

PARTS = ("truncation", "rounding")
HOSTILE = "<script>alert('a')</script> \"&$\\frac{ |"


def report(folder: Path, record: ReleaseRecord | None = None) -> str:
    write_report(record or example.record(), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of the example as it is: its plots take a second to draw."""
    return report(tmp_path_factory.mktemp("usual"))


def test_the_page_loads_nothing(usual: str) -> None:
    page = _Page(usual)
    assert all(target.startswith("#") for target in page.loaded)
    assert all(re.match(r"https://arxiv\.org/abs/\d{4}\.\d{5}$", link) for link in page.links)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", usual))
    assert "@import" not in usual
    assert not {"script", "link", "img", "iframe", "object"} & page.tags


def test_attacks_link_to_where_they_were_published(usual: str) -> None:
    assert "https://arxiv.org/abs/2506.19874" in _Page(usual).links


def test_every_plot_is_there_once_and_well_formed(usual: str) -> None:
    assert len(drawn(usual)) == usual.count("<figure>") == 6
    ids = _Page(usual).ids
    assert len(ids) == len(set(ids))


def test_equal_records_give_equal_bytes(tmp_path: Path, usual: str) -> None:
    reread = ReleaseRecord.model_validate_json(example.record().model_dump_json())
    assert report(tmp_path, reread) == usual


def test_a_file_that_was_there_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    report(tmp_path)
    report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_hostile_names_are_only_text(tmp_path: Path) -> None:
    data_set = example.exactness().data_sets[1]
    diverged = data_set.bundle.model_copy(update={"divergences": (example.divergence(prompt=HOSTILE),)})
    record = example.record(
        exactness=example.exactness(data_set.model_copy(update={"name": HOSTILE, "bundle": diverged})),
        audit=example.audit(example.attack(attack=HOSTILE, source=f"{HOSTILE} arXiv 2506.19874")),
        latency=example.latency().model_copy(update={"device": HOSTILE}),
        source=example.source().model_copy(update={"origin": HOSTILE, "sha256": {HOSTILE: "e" * 64}}),
        stages={HOSTILE: StageCost(seconds=1.0, peak_rss_bytes=10**6, cached=False)},
    )
    page = _Page(report(tmp_path, record))
    assert "script" not in page.tags
    assert page.words.count(HOSTILE) >= 7


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latency": example.latency(example.trial(300_000, 3.0, 2.83))}, "2.83 times as long per token"),
        ({"latency": example.latency().model_copy(update={"disturbed": 7})}, "timed again, of all candidates: 7."),
        ({"latency": example.latency().model_copy(update={"reachable": (3.1, 3.1)})}, "predicted a slowdown of 3.10"),
        ({"audit": example.audit(example.attack(recovered_1pct=0.4321))}, "recovered 43.21 % of the protected"),
        ({"audit": example.audit(skipped=True)}, "The audit was skipped: no attack was tried."),
        ({"stages": {"convert": StageCost(seconds=75.0, peak_rss_bytes=1_234_000_000, cached=True)}}, "1.23 GB"),
        ({"stages": {"convert": StageCost(seconds=75.0, peak_rss_bytes=10**9, cached=True)}}, "reused"),
        ({"verified": Verified(files=77, prompts=5, tokens=321)}, "5 prompts (321 tokens)"),
    ],
)
def test_the_page_says_what_the_record_says(usual: str, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    before = " ".join(_Page(usual).words.split())
    words = " ".join(_Page(report(tmp_path, example.record(**changes))).words.split())
    assert said in words
    assert said not in before or said == "reused"


def test_the_page_has_the_slowdown_at_every_other_shape_and_on_every_other_device(usual: str, tmp_path: Path) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", usual)
    cells = [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]
    assert ["4", "900", "5.51", "5.48 to 5.55", "3"] in cells
    assert ["Example GPU 9", "2 within 15\N{NO-BREAK SPACE}%", "2.06", "2.03 to 2.10", "4", "9"] in cells
    nowhere = report(
        tmp_path, example.record(latency=example.latency().model_copy(update={"shapes": (), "devices": ()}))
    )
    assert "other batch sizes" not in nowhere
    assert "other devices" not in nowhere


def test_nothing_is_claimed_of_an_audit_that_was_skipped(tmp_path: Path) -> None:
    words = _Page(report(tmp_path, example.record(audit=example.audit(skipped=True)))).words
    assert "No attack was run against this release." in words
    assert "rank_one" not in words


def test_divergences_are_listed_and_one_that_is_no_tie_says_so(tmp_path: Path) -> None:
    apart = example.comparison(23, 1e-3, (example.divergence(tie=False),))
    data_set = example.data_set("gsm8k", apart, example.comparison(24, 1e-9))
    text = report(tmp_path, example.record(exactness=example.exactness(data_set)))
    assert re.search(r"<td>math-17</td><td class=\"n\">41</td><td class=\"n\">0.83</td><td><strong>no</strong>", text)


def awkward_records() -> dict[str, ReleaseRecord]:
    nothing = example.data_set("project", example.comparison(24, 0.0), example.comparison(24, 0.0))
    broken = example.comparison(
        0, 1.0, tuple(Divergence(prompt="p", position=0, margin=math.nan, tie=False) for _ in "ab")
    )
    broken = broken.model_copy(update={"kl_mean": math.nan, "kl_max": math.inf, "log_prob_difference_max": math.inf})
    one_trial = example.trial(300_000, math.inf, math.nan).model_copy(
        update={"ci95": (math.nan, math.inf), "seconds_original": (0.5,), "seconds_bundle": (math.inf,)}
    )
    layers = example.converted().layers
    return {
        "zero KL": example.record(exactness=example.exactness(nothing)),
        "one data set, broken": example.record(
            exactness=example.exactness(example.data_set("project", broken, nothing.floor))
        ),
        "one trial, not finite": example.record(latency=example.latency(one_trial)),
        "interval beside its median": example.record(
            latency=example.latency(example.trial(300_000, 3.0, 3.0).model_copy(update={"ci95": (3.1, 3.2)}))
        ),
        "errors zero": example.record(
            converted=example.converted().model_copy(
                update={"layers": tuple(layer.model_copy(update=dict.fromkeys(PARTS, 0.0)) for layer in layers)}
            )
        ),
        "errors infinite": example.record(
            converted=example.converted().model_copy(
                update={"layers": (layers[0].model_copy(update={"truncation": math.inf}), *layers[1:])}
            )
        ),
        "one layer": example.record(converted=example.converted().model_copy(update={"layers": layers[:1]})),
        "no stages": example.record(stages={}),
        "no running text": example.record(exactness=example.exactness().model_copy(update={"perplexity": ()})),
        "many data sets with long names": example.record(
            exactness=example.exactness(
                *[nothing.model_copy(update={"name": f"{number}-{'long' * 40}"}) for number in range(12)]
            )
        ),
    }


def test_the_report_has_the_scores_of_both_models_on_every_task(tmp_path: Path) -> None:
    text = report(tmp_path, example.record(tasks=(example.task(),)))
    (row,) = re.findall(r"<tr><th>arithmetic</th><td>acc_norm</td>.*</tr>", text)
    assert re.findall(r">([^<>]+)</td>", row)[1:] == ["120", "119", "0.4", "0.4083", "0.01"]
    assert "Task of lm-eval" not in report(tmp_path, example.record())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", list(awkward_records()))
def test_an_awkward_record_still_gives_a_whole_report(tmp_path: Path, name: str) -> None:
    text = report(tmp_path, awkward_records()[name])
    assert len(drawn(text)) == 6
    assert text.rstrip().endswith("</html>")
    for svg in drawn(text):
        shapes = [part.get("d", "") + part.get("x", "") for part in svg.iter()]
        assert not any(re.search(r"\b(nan|inf)\b", shape) for shape in shapes)


def test_a_plot_shows_every_raw_sample_of_the_released_candidate(tmp_path: Path) -> None:
    def samples(pairs: int) -> int:
        seconds = tuple(0.5 + 0.01 * pair for pair in range(pairs))
        trial = example.trial(300_000, 3.0, 3.0).model_copy(
            update={"seconds_original": seconds, "seconds_bundle": tuple(3 * value for value in seconds)}
        )
        times = drawn(report(tmp_path, example.record(latency=example.latency(trial))))[3]
        return sum(part.tag.endswith("use") for part in times.iter())

    assert samples(9) - samples(6) == 2 * 3


def test_the_line_of_the_calibration_is_what_was_predicted_before_anything_was_measured(usual: str) -> None:
    trials = example.latency().trials
    candidates = [PlottedTrial(trial.plan.columns, trial.predicted, trial.slowdown, trial.ci95) for trial in trials]
    columns, slowdowns = prediction(trials[0].plan.neurons, candidates)
    assert columns[0] * 1000 < trials[0].plan.columns < trials[-1].plan.columns < columns[1] * 1000
    slope = (slowdowns[1] - slowdowns[0]) / (columns[1] - columns[0]) / 1000
    first = trials[0]
    assert slowdowns[0] + slope * (first.plan.columns - 1000 * columns[0]) == pytest.approx(first.predicted)
    assert slowdowns[0] + slope * (first.plan.neurons - 1000 * columns[0]) == pytest.approx(1)
    shown = "".join(drawn(usual)[2].itertext())
    assert all(label in shown for label in ("target", "first prediction", "predicted", "measured, 95 % interval"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "12 ms"), (14.27, "14.3 s"), (138.8, "2 min 19 s"), (7300.0, "2 h 1 min"), (math.nan, "NaN")],
)
def test_durations_are_in_the_unit_that_reads_best(seconds: float, said: str) -> None:
    assert duration(seconds) == said
