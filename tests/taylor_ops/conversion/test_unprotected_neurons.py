"""Unprotected neurons, if less than all are to be protected: which, how many, and that the rest is as it was."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.audit.audit import audit
from taylor_ops.config.audit import Audit
from taylor_ops.config.conversion import Conversion
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.conversion.terms import Subject
from taylor_ops.errors import GateRejected
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.original import Original
from taylor_ops.series import fitted_layer
from taylor_ops.series.layout import CLEAR
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import CPU, Sample, captured, silent

HALF = Conversion(tolerance=1e-4, range_margin=0.5, min_protected=0.5)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "gated": ("llama", {}),
    "plain, with biases": ("phi", {}),
    "experts": ("mixtral", {}),
    "kinked": ("gpt_neox", {"hidden_act": "relu2"}),
}


def partly_protected(original: Path, ranges: Path, conversion: Conversion, folder: Path) -> Sample:
    """Convert by the plan that protects least."""
    subject = Subject(Original(original), ranges, conversion)
    plan = min(subject.expansions().ladder(), key=lambda rung: rung.protected)
    return Sample(original, ranges, conversion, plan, convert(subject, plan, folder, silent), folder)


@pytest.fixture(scope="module", params=MODELS)
def half(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A tiny model half of whose neurons are protected."""
    model_type, changes = MODELS[request.param]
    root = tmp_path_factory.mktemp("half")
    original = save_tiny_model(root / "original", model_type, **changes)
    return partly_protected(original, captured(original, root / "ranges"), HALF, root / "bundle")


def at_least(llama: Sample, share: float) -> Sample:
    conversion = llama.conversion.model_copy(update={"min_protected": share})
    return Sample(llama.original, llama.ranges, conversion, llama.plan, llama.record, llama.converted)


def test_every_neuron_is_protected_unless_the_config_says_otherwise(llama: Sample) -> None:
    assert {plan.protected for plan in llama.expansions.ladder()} == {1.0}


@pytest.mark.parametrize("share", [0.9, 0.5, 0.013])
def test_neurons_are_left_unprotected_only_below_the_cheapest_plan_that_protects_all(
    llama: Sample, share: float
) -> None:
    whole, ladder = llama.expansions.ladder(), at_least(llama, share).expansions.ladder()
    assert [plan for plan in ladder if plan.clear == 0] == whole
    below = [plan for plan in ladder if plan.clear]
    assert below
    assert all(plan.columns < whole[0].columns for plan in below)
    assert all(fewer.protected < more.protected for fewer, more in itertools.pairwise([*below, whole[0]]))
    assert below[0].protected == pytest.approx(share, abs=1 / 48)
    assert below[0].protected >= share


def test_a_share_just_below_all_leaves_as_few_unprotected_as_it_says(llama: Sample) -> None:
    clear = [plan.clear_share for plan in at_least(llama, 0.998).expansions.ladder() if plan.clear_share]
    assert clear in ([], [pytest.approx(0.002)])
    fitted = at_least(llama, 0.998).expansions
    assert [candidate.unprotected_share for candidate in fitted._candidates()][-1] == pytest.approx(0.002)


def test_a_ladder_searches_the_orders_of_a_layer_once_for_each_tolerance(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []
    search = fitted_layer.orders_for

    def counted(bounds: Tensor, tolerance: Tensor, max_order: int) -> Tensor:
        asked.append(tolerance)
        return search(bounds, tolerance, max_order)

    monkeypatch.setattr(fitted_layer, "orders_for", counted)
    fitted = at_least(llama, 0.5).expansions
    fitted.ladder()
    tolerances = {candidate.tolerance for candidate in fitted._candidates()}
    # One more for each of the two layers looks how much rounding takes, before it is known what is allowed.
    assert len(asked) == 2 * (len(tolerances) + 1)


def test_the_neurons_with_the_longest_series_are_the_unprotected_ones_and_of_equals_those_that_add_most(
    llama: Sample,
) -> None:
    half = at_least(llama, 0.5)
    plan = half.expansions.ladder()[0]
    columns = clear = tied = 0
    for path in half.expansions.paths:
        before, after = llama.expansions.layout(path, llama.plan), half.expansions.layout(path, plan)
        unprotected = after.orders == CLEAR
        assert torch.equal(after.orders[~unprotected], before.orders[~unprotected])
        assert before.orders[unprotected].min() >= before.orders[~unprotected].max()
        as_long, layer = before.orders == before.orders[unprotected].min(), half.expansions[path]
        added = layer.weights.norms * layer.factor * layer.error_at(before.orders)
        if bool((as_long & ~unprotected).any()):
            tied += 1
            assert added[as_long & unprotected].min() >= added[as_long & ~unprotected].max()
        assert set(after.permutation[after.widths[0] :].tolist()) == set(unprotected.nonzero().flatten().tolist())
        columns, clear = columns + len(after.neuron), clear + after.clear
    assert tied
    assert (columns, clear) == (plan.columns, plan.clear) == (plan.columns, 48)
    protected = columns - clear
    assert plan.mean_order == pytest.approx(protected / 48 - 1)


def test_a_partly_protected_model_says_what_the_original_says(half: Sample) -> None:
    ids = torch.randint(32, 127, (4, 48), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        exact = load_original(half.original, "float32", CPU)(input_ids=ids).logits
        found = load_bundle(half.converted, CPU)(input_ids=ids).logits
        one = load_bundle(half.converted, CPU)(input_ids=ids[:1, :1]).logits
        first = load_original(half.original, "float32", CPU)
        candidate = convert_in_memory(first, Original(half.original), half.expansions, half.plan)(input_ids=ids).logits
    torch.testing.assert_close(found, exact, rtol=0, atol=3e-4)
    torch.testing.assert_close(one, exact[:1, :1], rtol=0, atol=3e-4)
    torch.testing.assert_close(candidate, found, rtol=0, atol=1e-5)


def test_gradients_pass_through_unprotected_neurons_as_through_the_original(half: Sample) -> None:
    ids = torch.randint(32, 127, (2, 16), generator=torch.Generator().manual_seed(5))
    slopes = []
    for model in (load_original(half.original, "float32", CPU), load_bundle(half.converted, CPU)):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embedded).logits.logsumexp(-1).sum().backward()
        slopes.append(embedded.grad)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-2 * float(slopes[0].abs().max()))


def test_the_columns_of_unprotected_neurons_are_output_weights_and_no_others_are(half: Sample) -> None:
    original, released = Original(half.original), Checkpoint(half.converted)
    counted = 0
    for mlp, layer in zip(original.mlps, half.record.layers, strict=True):
        terms, down = released.tensor(f"{mlp.path}.terms.weight"), original.weights(mlp).down
        stacked = half.expansions.layout(mlp.path, half.plan)
        assert layer.clear == stacked.clear > 0
        unprotected = terms[:, len(stacked.neuron) - stacked.clear :]
        assert torch.equal(unprotected, down[:, stacked.permutation[stacked.widths[0] :]])
        counted += layer.clear
        protected = down[:, stacked.permutation[: stacked.widths[0]]]
        distances = (terms[:, :, None] - protected[:, None, :]).abs().amax(0)
        assert float(distances.min()) > 0
    assert half.record.neurons_total - half.record.neurons_protected == counted == half.plan.clear
    config = json.loads((half.converted / "config.json").read_text())["taylor_mlp"]
    assert sum(config["clear"].values()) == counted


def test_bounds_count_only_what_is_expanded(llama: Sample) -> None:
    half = at_least(llama, 0.5)
    plan = half.expansions.ladder()[0]
    for path in half.expansions.paths:
        all_of_it, part = llama.expansions.bound(path, llama.plan), half.expansions.bound(path, plan)
        assert 0 < float(part.truncation) < float(all_of_it.truncation)
        assert 0 < float(part.rounding) < float(all_of_it.rounding)


def test_the_gate_of_what_is_stored_knows_unprotected_neurons_and_rejects_one_more(half: Sample) -> None:
    arguments = half.subject, half.plan, half.converted
    require_as_planned(*arguments)
    place = half.converted / "model-00001-of-00001.safetensors"
    untouched = place.read_bytes()
    tensors = load_file(place)
    mlp = Original(half.original).mlps[0]
    tensors[f"{mlp.path}.terms.weight"][:, 0] = Original(half.original).weights(mlp).down[:, 0]
    save_file(tensors, place, {"format": "pt"})
    try:
        with pytest.raises(GateRejected, match=r"terms\.weight is not what source and plan give"):
            require_as_planned(*arguments)
    finally:
        place.write_bytes(untouched)


def test_an_attack_is_scored_on_protected_neurons_alone(half: Sample) -> None:
    result = audit(half.original, half.converted, Audit(attacks=("rank_one",)), silent).attacks[0]
    assert result.weights == 32 * half.record.neurons_protected
    assert result.recovered_1pct > 0.99
