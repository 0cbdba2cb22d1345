"""The gate of exactness: what it accepts, and that it can fail."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taylor_ops.errors import GateRejected
from taylor_ops.exactness.gate import chance_of_so_many, require_exact
from taylor_ops.exactness.record import Comparison, DataSetExactness, Divergence, ExactnessRecord, RangeUse
from taylor_ops.exactness.validate import TIE_RULE

TIE_MARGIN = 1e-3
NOWHERE = RangeUse(activations=1000, outside_captured=0, outside_widened=0)


def comparison(ties: int = 0, others: int = 0, prompts: int = 10, kl_max: float = 1e-6) -> Comparison:
    divergences = tuple(
        Divergence(prompt=f"p{number}", position=7, margin=1e-4 if number < ties else 0.8, tie=number < ties)
        for number in range(ties + others)
    )
    return Comparison(
        prompts=prompts,
        prompts_equal=prompts - len(divergences),
        tokens_compared=64 * prompts,
        first_divergence=7 if divergences else None,
        divergences=divergences,
        kl_mean=kl_max / 10,
        kl_max=kl_max,
        log_prob_difference_max=1e-3,
        top1_agreement=1 - len(divergences) / (64 * prompts),
    )


def record(*data_sets: tuple[Comparison, Comparison]) -> ExactnessRecord:
    """A record of pairs of bundle and floor."""
    return ExactnessRecord(
        dtype="float32",
        new_tokens=64,
        batch_size=24,
        floor_batch_size=8,
        data_sets=tuple(
            DataSetExactness(name=f"set-{number}", bundle=bundle, floor=floor, ranges=NOWHERE)
            for number, (bundle, floor) in enumerate(data_sets)
        ),
        layers=(),
        perplexity=(),
        tie_margin=TIE_MARGIN,
        tie_rule=TIE_RULE,
        continuations=(),
    )


def test_a_bundle_that_says_everything_equal_is_accepted() -> None:
    require_exact(record((comparison(), comparison()), (comparison(), comparison(ties=3))))


@pytest.mark.parametrize("ties", [1, 2, 3])
def test_as_many_ties_as_the_floor_has_are_accepted(ties: int) -> None:
    require_exact(record((comparison(ties=ties), comparison(ties=3))))


def test_more_ties_than_the_floor_has_are_rejected() -> None:
    with pytest.raises(GateRejected, match=r"`set-1`: 6 of 10 prompts equal; its 4 ties are more than the 3"):
        require_exact(record((comparison(), comparison()), (comparison(ties=4), comparison(ties=3))))


def test_a_tie_where_the_floor_has_none_is_rejected() -> None:
    with pytest.raises(GateRejected, match="1 ties are more than the 0"):
        require_exact(record((comparison(ties=1), comparison())))


def test_a_divergence_that_is_no_tie_is_rejected_however_many_the_floor_has() -> None:
    with pytest.raises(GateRejected, match=r"`set-0`.*p2 differs at new token 7.*0\.8 nats.*limit 0\.001"):
        require_exact(record((comparison(ties=2, others=1), comparison(ties=5, others=5))))


def in_bfloat16(bundle: Comparison, floor: Comparison) -> ExactnessRecord:
    return record((bundle, floor)).model_copy(update={"dtype": "bfloat16"})


def on_prompts(alone: int, shared: int, prompts: int = 100) -> Comparison:
    """Ties on `shared` prompts that both runs have, and on `alone` others."""
    ties = comparison(ties=shared + alone, prompts=prompts)
    own = [tie.model_copy(update={"prompt": f"own-{tie.prompt}"}) for tie in ties.divergences[shared:]]
    return ties.model_copy(update={"divergences": (*ties.divergences[:shared], *own)})


def test_in_16_bits_a_few_more_ties_than_the_floor_has_are_chance_and_many_are_not() -> None:
    for alone, accepted in ((4, True), (6, True), (12, False), (40, False)):
        judged = in_bfloat16(on_prompts(alone, shared=20), comparison(ties=22, prompts=100))
        if accepted:
            require_exact(judged)
        else:
            with pytest.raises(GateRejected, match=r"ties are more than the 22 of the original .* by chance in"):
                require_exact(judged)
        if alone > 2:
            with pytest.raises(GateRejected, match="more than the 22"):
                require_exact(judged.model_copy(update={"dtype": "float32"}))


def test_in_16_bits_too_a_tie_where_the_floor_has_none_is_rejected() -> None:
    with pytest.raises(GateRejected, match="1 ties are more than the 0"):
        require_exact(in_bfloat16(comparison(ties=1), comparison()))


@pytest.mark.parametrize(("ours", "floors", "chance"), [(15, 9, 0.1537), (0, 0, 1.0), (1, 0, 0.5), (10, 0, 2.0**-10)])
def test_the_chance_of_more_divergences_is_that_of_a_fair_coin(ours: int, floors: int, chance: float) -> None:
    bundle, floor = on_prompts(ours, shared=7), comparison(ties=7 + floors, prompts=100)
    assert chance_of_so_many(bundle, floor) == pytest.approx(chance, rel=1e-3)


def test_every_data_set_is_judged() -> None:
    good = (comparison(), comparison())
    for place in range(3):
        sets = [good, good, good]
        sets[place] = (comparison(others=1), comparison())
        with pytest.raises(GateRejected, match=f"`set-{place}`"):
            require_exact(record(*sets))


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_bundle_that_computes_nan_or_infinity_is_rejected(broken: float) -> None:
    with pytest.raises(GateRejected, match="not finite"):
        require_exact(record((comparison(kl_max=broken), comparison())))


@given(ties=st.integers(0, 6), others=st.integers(0, 2), floor=st.integers(0, 6))
def test_the_gate_accepts_exactly_what_its_rule_says(ties: int, others: int, floor: int) -> None:
    judged = record((comparison(ties=ties, others=others), comparison(ties=floor)))
    if others == 0 and ties <= floor:
        require_exact(judged)
    else:
        with pytest.raises(GateRejected):
            require_exact(judged)


def test_a_record_that_holds_nan_can_still_be_written_and_judged_again(tmp_path: Path) -> None:
    record((comparison(kl_max=math.nan), comparison())).write(tmp_path / "exactness.json")
    with pytest.raises(GateRejected, match="not finite"):
        require_exact(ExactnessRecord.read(tmp_path / "exactness.json"))
