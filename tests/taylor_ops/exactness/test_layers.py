"""What held-out prompts show of each MLP, and the gate of the a-priori bounds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from taylor_ops.errors import GateRejected
from taylor_ops.exactness.layers import LayerErrors, RangeCounts, layer_errors, limits_of, require_within_bounds
from taylor_ops.exactness.record import LayerError, RangeUse
from taylor_ops.model.loading import load_bundle, load_original
from taylor_ops.model.mlp_hooks import Role, watched
from taylor_ops.model.original import Original
from taylor_ops.series.ranges import LayerRange, read_ranges
from tests.taylor_ops.conftest import CPU, Sample

PROMPTS = torch.randint(32, 127, (8, 24), generator=torch.Generator().manual_seed(3)).tolist()


def errors_of(
    sample: Sample, scaled: dict[str, float] | None = None, alone: dict[str, float] | None = None, **narrowed: float
) -> tuple[LayerError, ...]:
    """The measured errors; `scaled` multiplies tensors of the bundle, `narrowed` scales what was captured.

    alone: multiplies the outputs of MLPs that are given one token.
    """
    bundle = load_bundle(sample.converted, CPU)
    with torch.no_grad():
        for name, factor in (scaled or {}).items():
            bundle.get_parameter(name).mul_(factor)
    for path, factor in (alone or {}).items():
        bundle.get_submodule(path).register_forward_hook(
            lambda _mlp, given, output, factor=factor: output * factor if len(given[0]) == 1 else output
        )
    ranges = read_ranges(sample.ranges)
    for key, scale in narrowed.items():
        ranges = {path: replace(one, **{key: getattr(one, key) * scale}) for path, one in ranges.items()}
    original, mlps = load_original(sample.original, "float32", CPU), Original(sample.original).mlps
    return layer_errors(original, bundle, mlps, ranges, sample.conversion.range_margin, PROMPTS)


def test_a_converted_model_is_within_its_bounds(gated_or_plain: Sample) -> None:
    errors = errors_of(gated_or_plain)
    require_within_bounds(errors, gated_or_plain.record.layers)
    assert [error.path for error in errors] == [layer.path for layer in gated_or_plain.record.layers]
    for error, layer in zip(errors, gated_or_plain.record.layers, strict=True):
        assert error.tokens == 8 * 24
        assert error.tokens_inside > 0
        assert error.inside is not None
        assert 0 < error.inside <= error.largest
        assert error.inside < layer.bound


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_that_is_wrong_by_more_than_its_bound_is_rejected_by_name(gated_or_plain: Sample, layer: int) -> None:
    path = f"model.layers.{layer}.mlp"
    errors = errors_of(gated_or_plain, {f"{path}.terms.weight": 1.001})
    with pytest.raises(GateRejected, match=rf"{path}: its output is wrong by .* a-priori bound and arithmetic allow"):
        require_within_bounds(errors, gated_or_plain.record.layers)


def test_a_layer_that_computes_nan_is_rejected(llama: Sample) -> None:
    errors = errors_of(llama, {"model.layers.1.mlp.terms.weight": math.nan})
    with pytest.raises(GateRejected, match=r"model\.layers\.1\.mlp"):
        require_within_bounds(errors, llama.record.layers)


@pytest.mark.parametrize("factor", [1.1, math.nan])
def test_a_layer_that_is_wrong_about_one_token_alone_is_rejected_by_name(gated_or_plain: Sample, factor: float) -> None:
    path = "model.layers.1.mlp"
    errors = errors_of(gated_or_plain, alone={path: factor})
    with pytest.raises(GateRejected, match=rf"{path}: its output is wrong by .* a-priori bound and arithmetic allow"):
        require_within_bounds(errors, gated_or_plain.record.layers)


@pytest.mark.parametrize("narrowed", [{"high": 1e-3, "low": 1e-3}, {"factor": 1e-3}], ids=["inputs", "factors"])
def test_no_bound_is_held_against_tokens_that_leave_the_widened_ranges(
    llama: Sample, narrowed: dict[str, float]
) -> None:
    errors = errors_of(llama, {"model.layers.0.mlp.terms.weight": 1.1}, **narrowed)
    assert all((error.tokens_inside, error.inside) == (0, None) for error in errors)
    assert errors[0].largest > llama.record.layers[0].bound
    require_within_bounds(errors, llama.record.layers)


def test_no_more_tokens_are_run_than_are_needed(llama: Sample) -> None:
    original, bundle = load_original(llama.original, "float32", CPU), load_bundle(llama.converted, CPU)
    ranges = read_ranges(llama.ranges)
    errors = layer_errors(original, bundle, Original(llama.original).mlps, ranges, 0.5, [PROMPTS[0]] * 100)
    assert {error.tokens for error in errors} == {1024}


def test_the_tokens_of_a_long_pass_that_are_measured_lie_evenly_in_it_up_to_its_last(llama: Sample) -> None:
    original, bundle = load_original(llama.original, "float32", CPU), load_bundle(llama.converted, CPU)
    ranges, mlps = read_ranges(llama.ranges), Original(llama.original).mlps
    measured = LayerErrors(bundle, ranges, limits_of(ranges, 0.5, CPU), [mlp.path for mlp in mlps])
    shown: list[torch.Tensor] = []
    bundle.get_submodule(mlps[0].path).register_forward_pre_hook(lambda _mlp, given: shown.append(given[0]))
    inputs: list[torch.Tensor] = []

    def see(path: str, role: Role, values: torch.Tensor) -> None:
        if (path, role) == (mlps[0].path, "input"):
            inputs.append(values)
        measured.see(path, role, values)

    with watched(original, mlps, see), torch.inference_mode():
        original(input_ids=torch.tensor(PROMPTS[:1]).repeat(1, 30)[:, :400])
    assert {error.tokens for error in measured.errors()} == {100}
    assert torch.equal(shown[0], inputs[0][3::4])
    assert [len(part) for part in shown[1:]] == [1] * 4
    assert torch.equal(torch.cat(shown[1:]), inputs[0][3::4][[99, 67, 35, 3]])


# Activations outside the ranges


def used(
    sample: Sample, ranges: dict[str, LayerRange], margin: float, ids: torch.Tensor, **more: torch.Tensor
) -> RangeUse:
    model = load_original(sample.original, "float32", CPU)
    counts = RangeCounts(limits_of(ranges, margin, CPU))
    with watched(model, Original(sample.original).mlps, counts.see), torch.inference_mode():
        model(input_ids=ids, **more)
    return counts.use()


def test_activations_outside_are_counted_one_by_one(llama: Sample) -> None:
    ids = torch.tensor(PROMPTS)
    usual = read_ranges(llama.ranges)
    nowhere = {path: replace(one, low=one.low - 1e6, high=one.low - 1e6) for path, one in usual.items()}
    everywhere = {path: replace(one, low=one.low - 1e6, high=one.high + 1e6) for path, one in usual.items()}
    every = ids.numel() * 48 * 2
    assert used(llama, nowhere, 0.5, ids) == RangeUse(activations=every, outside_captured=every, outside_widened=every)
    assert used(llama, everywhere, 0.5, ids) == RangeUse(activations=every, outside_captured=0, outside_widened=0)
    narrow = {path: replace(one, low=one.low / 2, high=one.high / 2) for path, one in usual.items()}
    some = used(llama, narrow, 0.2, ids)
    assert 0 < some.outside_widened < some.outside_captured < every


def test_padding_is_not_counted(llama: Sample) -> None:
    ids, mask = torch.tensor(PROMPTS), torch.ones(8, 24, dtype=torch.int64)
    mask[:3, :10] = 0
    use = used(llama, read_ranges(llama.ranges), 0.5, ids, attention_mask=mask)
    assert use.activations == int(mask.sum()) * 48 * 2


def test_counts_of_two_passes_add_up() -> None:
    one = RangeUse(activations=10, outside_captured=3, outside_widened=1)
    assert one + one == RangeUse(activations=20, outside_captured=6, outside_widened=2)
