"""What an audit says: the gate that blocks, the bounds a bundle states, and the words on the card and in the report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taylor_ops.attacks.record import Task
from taylor_ops.audit.claims import claims
from taylor_ops.audit.gate import require_allowed
from taylor_ops.audit.record import AuditRecord, Compiled
from taylor_ops.bundle.card import render_card
from taylor_ops.config.audit import Audit, Thresholds
from taylor_ops.errors import GateRejected
from taylor_ops.releases.report import write_report
from tests.support import release_example as example

BLOCK = Audit(policy="block")


def card_of(record: AuditRecord, measured: bool = True) -> str:
    """The card of a release with this audit. measured: whether it may state what was timed."""
    statements = example.statements(audit=record)
    if not measured:
        statements["audit"] = claims(record)
        del statements["slowdown"]["measured"]
    return render_card(statements, example.config())


def words_of(record: AuditRecord) -> str:
    return " ".join(card_of(record).split())


def left_of(record: AuditRecord, measured: bool = True) -> list[str]:
    """Rows of the card's table of what is left of the slowdown."""
    _, _, section = card_of(record, measured).partition("\n## What is left of the slowdown\n")
    return re.findall(r"^\| (?:this|the model).*$", section.partition("\n## ")[0], re.MULTILINE)


# The gate


def test_disclosing_lets_everything_pass() -> None:
    require_allowed(example.audit(), Audit())
    require_allowed(example.audit(skipped=True), Audit())


def test_blocking_names_attack_figure_and_threshold() -> None:
    failed = example.attack(attack="ratios", recovered_1pct=0.004)
    with pytest.raises(GateRejected) as caught:
        require_allowed(example.audit(failed, example.attack(recovered_1pct=0.4321)), BLOCK)
    assert "attack `rank_one` recovers 43.21 % of the protected weights" in caught.value.cause
    assert "more than the 1 % of `audit.thresholds.rank_one`" in caught.value.cause
    assert "audit.policy: disclose" in caught.value.remedy


@pytest.mark.parametrize(("share", "passes"), [(0.5, True), (0.5001, False)])
def test_a_threshold_belongs_to_its_attack_and_holds_from_just_above_it(share: float, passes: bool) -> None:
    settings = Audit(policy="block", thresholds=Thresholds(collapse=0.5))
    record = example.audit(example.attack(attack="collapse", recovered_1pct=share))
    if passes:
        require_allowed(record, settings)
    else:
        with pytest.raises(GateRejected, match="collapse"):
            require_allowed(record, settings)
    with pytest.raises(GateRejected, match="ratios"):
        require_allowed(example.audit(example.attack(attack="ratios", recovered_1pct=share)), settings)


def test_an_attack_that_cannot_tell_lets_nothing_pass() -> None:
    short = example.attack(attack="least_squares", recovered_1pct=0.0, under_determined="9 samples for 48 unknowns")
    with pytest.raises(GateRejected, match="under-determined and proves nothing: 9 samples for 48 unknowns"):
        require_allowed(example.audit(short), BLOCK)


def test_blocking_without_an_attack_is_refused_in_the_config_and_by_the_gate() -> None:
    with pytest.raises(ValueError, match="blocks nothing"):
        Audit(policy="block", attacks=())
    with pytest.raises(GateRejected, match="no attack was run"):
        require_allowed(example.audit(skipped=True), BLOCK)


# What a bundle states


def test_a_bundle_states_bounds_that_do_not_move_with_the_clock() -> None:
    quick, slow = (
        example.attack(rebuilt=example.rebuilt(example.timed(slowdown)), seconds=seconds, peak_rss_bytes=memory)
        for slowdown, seconds, memory in ((0.97, 3.0, 10**9), (1.19, 110.0, 2 * 10**9))
    )
    stated = claims(example.audit(quick))
    assert stated == claims(example.audit(slow))
    [attack] = stated["attacks"]
    assert attack["seconds_at_most"] == 600
    assert attack["rebuilt"]["slowdown_at_most"] == 1.5
    assert attack["rebuilt"]["prompts_equal"] == 23
    assert "takes at most 1.5 times as long as the original" in attack["in_words"]


def test_a_bound_is_never_below_what_was_measured() -> None:
    stated = claims(example.audit(example.attack(rebuilt=example.rebuilt(example.timed(1.4)), seconds=1e6)))
    assert stated["attacks"][0]["rebuilt"]["slowdown_at_most"] == 3.0
    assert stated["attacks"][0]["seconds_at_most"] is None
    far = claims(example.audit(example.attack(rebuilt=example.rebuilt(example.timed(40.0)))))
    assert far["attacks"][0]["rebuilt"]["slowdown_at_most"] is None
    wide = example.timed(1.0).model_copy(update={"ci95": (0.5, 2.1), "settled": False})
    noisy = claims(example.audit(example.attack(rebuilt=example.rebuilt(wide))))
    assert noisy["attacks"][0]["rebuilt"]["slowdown_at_most"] == 3.0
    assert "and takes longer, compared with the original, than any bound stated here." in far["attacks"][0]["in_words"]
    untimed = example.rebuilt().model_copy(update={"residual": None})
    silent = claims(example.audit(example.attack(rebuilt=untimed)))
    assert "slowdown_at_most" not in silent["attacks"][0]["rebuilt"]
    assert "nats per token). Its speed was not measured." in silent["attacks"][0]["in_words"]


@pytest.mark.parametrize("target", [1.5, 2, 2.5, 3, 3.3, 3.5, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30])
def test_the_bound_on_a_compiled_bundle_is_the_same_all_around_a_round_target(target: float) -> None:
    stated = [
        claims(example.audit().model_copy(update={"compiled": Compiled(alone=timed, both=timed)}))["compiled"]
        for timed in (example.timed(0.93 * target), example.timed(1.07 * target))
    ]
    assert stated[0] == stated[1]


def test_a_bundle_that_may_state_it_has_what_was_measured_with_every_sample() -> None:
    compiled = Compiled(alone=example.timed(1.4), both=example.timed(2.2))
    untimed = example.rebuilt().model_copy(update={"residual": None})
    attacks = (
        example.attack(rebuilt=example.rebuilt()),
        example.attack(attack="ratios", rebuilt=untimed),
        example.attack(attack="collapse"),
    )
    record = example.audit(*attacks).model_copy(update={"compiled": compiled})
    stated = claims(record, measured=True)
    assert stated["measured"] == {
        "compiled": {"alone": example.timed(1.4).plain(), "both": example.timed(2.2).plain()},
        "rebuilt": {"rank_one": example.timed().plain()},
    }
    assert "takes 1.03 times (95 % interval 1.01 to 1.05) as long as the original" in stated["attacks"][0]["in_words"]
    assert "measured" not in claims(record)
    assert claims(example.audit(skipped=True), measured=True)["measured"] == {"rebuilt": {}}


def test_what_a_training_did_is_stated_with_its_loss_and_not_as_recovered_weights() -> None:
    task = Task(tokens_trained=4096, tokens_held_out=1024, loss_before=11.2531, loss_after=6.1, loss_original=3.004)
    attack = example.attack(attack="fine_tuning", recovered_1pct=0.0061, task=task)
    [stated] = claims(example.audit(attack))["attacks"]
    assert stated["task"]["loss_before"] == 11.25
    words = stated["in_words"]
    assert "goes from 11.25 with random weights to 6.10 nats per token; the original has 3.00." in words
    assert "wins back 62.42 % of what random weights lose" in words
    assert "a guess is as near to them" in words
    near = example.attack(recovered_1pct=0.4, task=task)
    assert "a guess" not in claims(example.audit(near))["attacks"][0]["in_words"]


# On the card


def test_the_card_says_what_an_attacker_gets_and_after_how_long() -> None:
    attack = example.attack(attack="collapse", rebuilt=example.rebuilt(), intervals_found=0.871)
    text = words_of(example.audit(attack))
    assert "gets over 99.99 % of the protected weights back to within 1 %" in text
    assert "in at most 600 seconds" in text
    assert "continues 23 of 24 held-out prompts with the original's tokens (KL 4.1e-9 nats per token)" in text
    assert "give them away for 87.1 % of the neurons" in text
    assert "Not run against this release: rank_one, ratios, least_squares, distillation" in text
    assert "with them a model as fast as the original" in text


def test_the_card_says_of_how_many_neurons_the_terms_can_tell_an_interval() -> None:
    some = words_of(example.audit(example.attack(intervals_found=0.5, intervals_asked=0.25)))
    assert "give them away for 50 % of the 25 % of the neurons that have order 4 or more" in some
    none = words_of(example.audit(example.attack(intervals_asked=0.0)))
    assert "cannot say what hiding the intervals of the series would hide" in none
    assert "give them away" not in none


def test_the_card_says_that_an_attack_could_not_tell_all() -> None:
    text = words_of(example.audit(example.attack(recovered_1pct=0.0, under_determined="9 samples for 48 unknowns")))
    assert "It could not determine all of them (9 samples for 48 unknowns); more data may give more." in text
    assert "That is what was tried, not a limit" in text


HERE = "11 | Example CPU 7, 2 threads |"


@pytest.mark.parametrize("skipped", [False, True])
def test_the_card_says_what_compiling_leaves_as_it_was_measured(skipped: bool) -> None:
    compiled = Compiled(alone=example.timed(1.4), both=example.timed(2.2))
    bundle, alone, both, rebuilt = left_of(example.audit(skipped=skipped).model_copy(update={"compiled": compiled}))
    assert bundle == "| this bundle | the original | 2.97 | 2.92 to 3.05 | 9 | Example CPU 7, 2 threads |"
    assert alone == f"| this bundle, compiled | the original | 1.40 | 1.38 to 1.42 | {HERE}"
    assert both == f"| this bundle, compiled | the original, compiled | 2.20 | 2.18 to 2.22 | {HERE}"
    assert "| not measured |" in rebuilt


def test_the_card_says_what_each_attack_leaves_as_it_was_measured() -> None:
    untimed = example.rebuilt().model_copy(update={"residual": None})
    record = example.audit(
        example.attack(attack="collapse", rebuilt=example.rebuilt(example.timed(1.2, settled=False))),
        example.attack(attack="ratios", rebuilt=example.rebuilt()),
        example.attack(attack="lora", rebuilt=untimed),
        example.attack(),
    )
    noisy = "1.18 to 1.22, on a machine too noisy for a narrower one"
    assert left_of(record)[3:] == [
        f"| the model that collapse rebuilds | the original | 1.20 | {noisy} | {HERE}",
        f"| the model that ratios rebuilds | the original | 1.03 | 1.01 to 1.05 | {HERE}",
        "| the model that lora rebuilds | the original | not measured | | | |",
    ]
    assert left_of(record, measured=False)[3:] == [
        "| the model that collapse rebuilds | the original | at most 1.5 |",
        "| the model that ratios rebuilds | the original | at most 1.5 |",
        "| the model that lora rebuilds | the original | not measured |",
    ]


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("skipped", [False, True])
def test_the_card_says_what_was_not_measured_of_what_is_left(skipped: bool, measured: bool) -> None:
    rows = left_of(example.audit(skipped=skipped), measured)
    assert "bounds are round" not in card_of(example.audit(skipped=skipped), measured)
    assert ["not measured" in row for row in rows] == [False, True, True, True]


def test_a_card_without_what_was_timed_has_bounds_and_says_that_less_may_be_left() -> None:
    compiled = Compiled(alone=example.timed(1.4), both=example.timed(40.0))
    record = example.audit().model_copy(update={"compiled": compiled})
    assert left_of(record, measured=False)[:3] == [
        "| this bundle | the original | 2.70 to 3.30 |",
        "| this bundle, compiled | the original | at most 8.4 |",
        "| this bundle, compiled | the original, compiled | above any bound stated here |",
    ]
    assert "Much less of the" in card_of(record, measured=False)
    assert "Much less of the" not in card_of(record)


# In the report


def report(tmp_path: Path, record: AuditRecord) -> str:
    write_report(example.record(audit=record), tmp_path / "report.html")
    return " ".join((tmp_path / "report.html").read_text(encoding="utf-8").split())


def test_the_report_has_what_was_measured_and_what_is_left_of_the_slowdown(tmp_path: Path) -> None:
    compiled = Compiled(alone=example.timed(2.31), both=example.timed(2.77))
    attack = example.attack(rebuilt=example.rebuilt(), under_determined="9 samples for 48 unknowns")
    text = report(tmp_path, example.audit(attack).model_copy(update={"compiled": compiled}))
    assert "takes 1.03 times (95 % interval 1.01 to 1.05) as long as the original" in text
    assert "in 14.3 s" in text
    assert "Budget: one eigenvector a neuron." in text
    assert "could not determine all of them (9 samples for 48 unknowns)" in text
    assert all(f'<td class="n">{figure}</td>' in text for figure in ("2.31", "2.77", "1.03"))


def test_the_report_says_where_the_machine_was_too_noisy(tmp_path: Path) -> None:
    attack = example.attack(rebuilt=example.rebuilt(example.timed(1.2, settled=False)))
    assert "1.22; the machine was too noisy for a narrower one) as long as the original" in report(
        tmp_path, example.audit(attack)
    )
    assert "too noisy" not in report(tmp_path, example.audit(example.attack(rebuilt=example.rebuilt())))


def test_the_report_says_what_was_not_measured_of_what_is_left(tmp_path: Path) -> None:
    assert report(tmp_path, example.audit()).count("not measured") == 3
