"""The attacks: each recovers a release whose answer is known, and each, weakened, fails the same test."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from taylor_ops.attacks import distillation, intervals, least_squares, protected_layer, rank_one, ratios
from taylor_ops.attacks.protected_layer import Attack, ProtectedLayer, Recovered
from taylor_ops.attacks.target import Target
from taylor_ops.audit.audit import ATTACKS, TRAININGS, audit, named
from taylor_ops.audit.record import AttackResult
from taylor_ops.config.audit import AttackName, Audit, Thresholds
from taylor_ops.errors import BadInput
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.loading import load_original
from taylor_ops.series.activations import activation_named
from taylor_ops.series.expansion import coefficients, evaluate, fit, orders_for
from tests.taylor_ops.conftest import CPU, Sample, captured, converted, sample, silent

HEIGHT, NEURONS = 32, 48
# Training takes longer than algebra, and has tests of its own.
EVERY = tuple(name for name in ATTACKS if "distillation" not in name)
SAMPLES = 256


def attacked(released: Sample, name: str = "rank_one", **settings: Any) -> AttackResult:
    """What one attack gets, without a rebuilt model."""
    chosen = Audit(attacks=(name,), rebuild=(), samples=SAMPLES)
    return audit(released.original, released.converted, chosen.model_copy(update=settings), silent).attacks[0]


def require_recovered(result: AttackResult) -> None:
    """What a complete recovery means."""
    assert result.recovered_1pct >= 0.999
    assert result.cosine_median > 0.9999
    assert result.cosine_worst > 0.9999
    assert result.under_determined is None


@pytest.mark.parametrize("name", EVERY)
def test_every_attack_recovers_the_output_weights(gated_or_plain: Sample, name: str) -> None:
    result = attacked(gated_or_plain, name)
    require_recovered(result)
    assert result.recovered_01pct >= 0.999
    assert result.weights == 2 * HEIGHT * NEURONS
    assert result.attack == name
    assert result.seconds > 0
    assert result.peak_rss_bytes > 10**7
    assert all((result.source, result.assumptions, result.budget))


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16", "tolerance": 1e-3},
        {"basis": "taylor", "tolerance": 1e-2, "range_margin": 0.1},
        {"order": 6},
        {"min_protected": 0.5},
    ],
    ids=["bfloat16", "powers", "low order", "half unprotected"],
)
def test_every_attack_recovers_releases_of_every_kind(llama: Sample, tmp_path: Path, changes: dict[str, Any]) -> None:
    released = llama.again(tmp_path / "released", **changes)
    for name in EVERY:
        result = attacked(released, name)
        # Least squares has outputs alone: what rounding or a short series makes of them stays in what it finds.
        inexact = name == "least_squares" and ("dtype" in changes or "order" in changes)
        assert result.cosine_worst > (0.9 if inexact else 0.999)
        assert result.recovered_1pct > (0.05 if inexact else 0.9)
        assert result.weights == HEIGHT * released.record.neurons_protected


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [("opt", {}), ("gpt_neox", {"hidden_act": "relu2"}), ("gpt2", {}), ("phi3", {}), ("mixtral", {})],
    ids=["relu", "relu2", "transposed", "fused", "experts"],
)
def test_every_attack_and_the_rebuilt_model_know_every_form_of_an_mlp(
    tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    released = sample(tmp_path, model_type, **changes)
    settings = Audit(attacks=EVERY, rebuild=(), samples=SAMPLES)
    for result in audit(released.original, released.converted, settings, silent).attacks:
        require_recovered(result)
    ids = torch.randint(32, 127, (2, 24), generator=torch.Generator().manual_seed(3))
    target = Target(released.converted, tmp_path / "rebuilt")
    folder = target.rebuild(lambda layer: ATTACKS["collapse"].recover(layer, settings).weights)
    with torch.inference_mode():
        said, says = (
            load_original(place, "float32", CPU)(input_ids=ids).logits.log_softmax(-1)
            for place in (released.original, folder)
        )
    assert float((said - says).abs().max()) < 1e-3


# Weakened


def only_the_first_order(basis: Any, series: Tensor, t: Tensor) -> Tensor:
    return evaluate(basis, series[:2], t)


def test_rank_one_that_reads_only_the_first_order_fails(
    gated_or_plain: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_one, "evaluate", only_the_first_order)
    with pytest.raises(AssertionError):
        require_recovered(attacked(gated_or_plain))


def test_rank_one_without_its_signs_gets_half(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sign(basis: Any, series: Tensor, t: Tensor) -> Tensor:
        value = evaluate(basis, series, t)
        return value * torch.where(torch.arange(value.shape[1]) % 2 == 0, 1.0, -1.0)

    monkeypatch.setattr(rank_one, "evaluate", without_sign)
    result = attacked(llama)
    assert 0.3 < result.recovered_1pct < 0.7
    assert result.cosine_worst < -0.999


def test_ratios_with_the_coefficients_of_shifted_intervals_fail(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ratios.fit
    monkeypatch.setattr(ratios, "fit", lambda phi, center, radius, basis: right(phi, center + 0.1, radius, basis))
    result = attacked(llama, "ratios")
    assert result.recovered_1pct < 0.5


def test_ratios_without_the_absolute_scale_fail(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ratios.coefficients
    monkeypatch.setattr(ratios, "coefficients", lambda *of: right(*of) / right(*of)[0])
    result = attacked(llama, "ratios")
    assert result.recovered_1pct < 0.5
    assert abs(result.cosine_median) > 0.99


def test_intervals_are_not_found_where_the_ratios_are_of_another_activation(
    llama: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attacked(llama, "ratios").intervals_found == 1.0
    right = ratios.intervals_of
    other = intervals.Activation("other", lambda z: z.square() + z.abs(), None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(ratios, "intervals_of", lambda *of: right(*of[:3], other))
    assert float(attacked(llama, "ratios").intervals_found or 0) < 0.1


@pytest.mark.parametrize("radius", [1.0, 6.0], ids=["own series", "series too slow"])
def test_intervals_are_found_in_powers_whether_or_not_the_own_series_converges(radius: float) -> None:
    phi = activation_named("silu")
    center = torch.linspace(-3, 3, 7, dtype=torch.float64)
    fitted = fit(phi, center, torch.full_like(center, radius), "taylor")
    assert fitted.taylor is not None
    assert bool(fitted.taylor[0].isnan().all()) == (radius > 3)
    orders = orders_for(fitted.errors, 1e-3, 64)
    terms = (-3 * coefficients(fitted, orders)).float().double()
    found, wide = intervals.intervals_of(terms, orders, "taylor", phi)
    assert torch.allclose(found, center, atol=0.01 * radius)
    assert torch.allclose(wide, fitted.radius, rtol=0.01)


def test_nothing_is_said_of_intervals_that_the_terms_cannot_tell(llama: Sample, tmp_path: Path) -> None:
    low = attacked(llama.again(tmp_path / "low", order=3), "ratios")
    assert (low.intervals_found, low.intervals_asked) == (None, 0)
    kinked = attacked(sample(tmp_path, "opt"), "ratios")
    assert (kinked.intervals_found, kinked.intervals_asked) == (None, 0)
    assert attacked(llama, "rank_one").intervals_asked is None


def test_collapse_that_reads_one_term_only_fails_where_the_other_carries(
    gated_or_plain: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ProtectedLayer.tensor
    first = lambda layer, name: whole(layer, name) * (torch.tensor([[1.0], [0.0]]) if name == "carrier" else 1)  # noqa: E731
    monkeypatch.setattr(ProtectedLayer, "tensor", first)
    with pytest.raises(AssertionError):
        require_recovered(attacked(gated_or_plain, "collapse"))


def test_least_squares_on_features_without_their_gates_fails(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_gates(layer: ProtectedLayer, inputs: Tensor) -> Tensor:
        return layer.activation.value(inputs.double() @ layer.tensor("gate.weight").double().T)

    monkeypatch.setattr(protected_layer, "features", without_gates)
    assert attacked(llama, "least_squares").recovered_1pct < 0.1


def test_least_squares_with_too_few_samples_says_so_and_claims_nothing(gated_or_plain: Sample) -> None:
    result = attacked(gated_or_plain, "least_squares", samples=NEURONS - 1)
    assert result.under_determined is not None
    assert "47 samples for 48 unknowns" in result.under_determined
    assert "(and in 1 other layer)" in result.under_determined
    assert (result.recovered_1pct, result.cosine_median) == (0, 0)
    require_recovered(attacked(gated_or_plain, "least_squares", samples=4 * NEURONS))


def test_least_squares_leaves_open_what_its_features_do_not_tell_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    features[:, 3] = 0
    features[:, 6] = 2 * features[:, 5]
    weights = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    found, left_open = least_squares.solved(features, features @ weights.T)
    assert left_open.tolist() == [False, False, False, True, False, True, True, False]
    assert torch.allclose(found[:, ~left_open], weights[:, ~left_open])


def test_distillation_gets_what_its_budget_lets_it(gated_or_plain: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = (attacked(gated_or_plain, "distillation", samples=1024, steps=steps) for steps in (10, 800))
    assert short.recovered_1pct < 0.1 < 0.95 < long.recovered_1pct
    assert long.cosine_worst > 0.999
    assert long.budget == "1024 random inputs and 800 steps of Adam a layer"
    monkeypatch.setattr(distillation, "_RATE", 0.0)
    untrained = attacked(gated_or_plain, "distillation", samples=1024, steps=1)
    assert untrained.recovered_1pct < 0.05
    assert abs(untrained.cosine_median) < 0.5


def spoiled(attack: Attack, spoil: Callable[[Tensor], Tensor]) -> Attack:
    def recover(layer: ProtectedLayer, settings: Audit) -> Recovered:
        return Recovered(spoil(attack.recover(layer, settings).weights))

    return Attack(attack.name, attack.source, attack.assumptions, attack.budget, recover)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found * torch.where(torch.arange(found.shape[1]) % 2 == 0, 1.0, -1.0),
        lambda found: found / found.norm(dim=0),
        lambda found: found.roll(1, dims=1),
        lambda found: found + 0.05 * found.square().mean(0).sqrt() * torch.ones_like(found),
    ],
    ids=["signs not resolved", "scale not resolved", "neurons in the wrong order", "noise"],
)
def test_a_weakened_attack_fails_the_same_test(
    llama: Sample, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor], Tensor], name: str
) -> None:
    monkeypatch.setitem(ATTACKS, name, spoiled(ATTACKS[name], spoil))
    with pytest.raises(AssertionError):
        require_recovered(attacked(llama, name))


# What is known and what scores


@pytest.mark.parametrize("name", EVERY)
def test_the_original_only_scores_what_is_recovered(llama: Sample, tmp_path: Path, name: str) -> None:
    negated = load_original(llama.original, "float32", CPU)
    for layer in negated.model.layers:
        layer.mlp.down_proj.weight.data.neg_()
    negated.save_pretrained(tmp_path / "negated")
    settings = Audit(attacks=(name,), rebuild=(), samples=SAMPLES)
    result = audit(tmp_path / "negated", llama.converted, settings, silent).attacks[0]
    assert result.recovered_1pct < 0.05
    assert result.cosine_median < -0.9999


def test_neurons_with_equal_gates_are_told_apart(llama: Sample, tmp_path: Path) -> None:
    pruned = load_original(llama.original, "float32", CPU)
    pruned.model.layers[0].mlp.gate_proj.weight.data[[3, 17, 30]] = 0.0
    pruned.save_pretrained(tmp_path / "pruned")
    for path in llama.original.glob("*token*"):
        shutil.copyfile(path, tmp_path / "pruned" / path.name)
    ranges = captured(tmp_path / "pruned", tmp_path / "ranges")
    require_recovered(attacked(converted(tmp_path / "pruned", ranges, llama.conversion, tmp_path / "released")))


# What is shared


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Path, str]]:
    """How often each tensor of each folder was read."""
    counted: Counter[tuple[Path, str]] = Counter()
    read = Checkpoint.tensor

    def counting(checkpoint: Checkpoint, name: str) -> Tensor:
        counted[checkpoint.folder, name] += 1
        return read(checkpoint, name)

    monkeypatch.setattr(Checkpoint, "tensor", counting)
    return counted


def test_a_tensor_is_read_once_for_all_attacks_that_run_layer_by_layer(
    gated_or_plain: Sample, reads: Counter[tuple[Path, str]]
) -> None:
    settings = Audit(attacks=EVERY, rebuild=(), samples=SAMPLES)
    audit(gated_or_plain.original, gated_or_plain.converted, settings, silent)
    terms = [name for folder, name in reads if folder == gated_or_plain.converted and name.endswith("terms.weight")]
    assert len(terms) == 2
    assert set(reads.values()) == {1}


def test_no_attack_changes_what_the_others_read(gated_or_plain: Sample, tmp_path: Path) -> None:
    stored = Checkpoint(gated_or_plain.converted)
    for layer in Target(gated_or_plain.converted, tmp_path / "target").layers():
        for name in EVERY:
            ATTACKS[name].recover(layer, Audit(samples=SAMPLES))
        seen = {f"{layer.mlp.path}.{name}": tensor for name, tensor in layer._read.items()}
        assert f"{layer.mlp.path}.terms.weight" in seen
        assert all(torch.equal(tensor, stored.tensor(name)) for name, tensor in seen.items())


def test_attacks_that_share_their_layers_get_what_each_gets_alone(gated_or_plain: Sample) -> None:
    settings = Audit(attacks=EVERY, rebuild=(), samples=SAMPLES)
    together = audit(gated_or_plain.original, gated_or_plain.converted, settings, silent)
    for result in together.attacks:
        alone = attacked(gated_or_plain, result.attack)
        times = {"seconds", "peak_rss_bytes"}
        assert result.model_dump(exclude=times) == alone.model_dump(exclude=times)


def test_rank_one_gets_the_leading_singular_vectors(gated_or_plain: Sample, tmp_path: Path) -> None:
    layer = next(Target(gated_or_plain.converted, tmp_path / "target").layers())
    leading = rank_one._leading(layer)
    for neuron in range(layer.protected):
        terms = torch.stack([of_order[:, neuron] for _, of_order in layer.by_order() if of_order.shape[1] > neuron])
        expected = torch.linalg.svd(terms.double()).U[:, 0]
        assert abs(float(expected @ leading[: len(terms), neuron])) == pytest.approx(1, abs=1e-9)
        assert not leading[len(terms) :, neuron].any()


def test_rank_one_of_terms_that_are_all_zero_is_a_column_of_zeros(gated_or_plain: Sample, tmp_path: Path) -> None:
    layer = next(Target(gated_or_plain.converted, tmp_path / "target").layers())
    layer.__dict__["theta"] = layer.theta.clone()
    for _, terms in layer.by_order():
        terms[:, :1] = 0
    found = rank_one.recover(layer, Audit()).weights
    assert not found[:, 0].any()
    assert found[:, 1:].isfinite().all()


@pytest.mark.parametrize("other", ["phi", "one weight"])
def test_an_original_that_the_bundle_was_not_made_of_is_refused(
    llama: Sample, phi: Sample, tmp_path: Path, other: str
) -> None:
    changed = load_original(llama.original, "float32", CPU)
    changed.model.layers[1].mlp.up_proj.weight.data[5, 7] += 1e-6
    changed.save_pretrained(tmp_path / "changed")
    with pytest.raises(BadInput, match="does not have the neurons that the bundle has there") as caught:
        audit(phi.original if other == "phi" else tmp_path / "changed", llama.converted, Audit(rebuild=()), silent)
    assert "the original that the bundle was made of" in caught.value.remedy


# The registry


def test_an_audit_runs_the_named_attacks_and_tells_its_progress(llama: Sample) -> None:
    told: list[tuple[int, int]] = []
    settings = Audit(attacks=("rank_one", "collapse"), rebuild=())
    record = audit(llama.original, llama.converted, settings, lambda *step: told.append(step))
    assert [result.attack for result in record.attacks] == ["rank_one", "collapse"]
    assert not record.skipped
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_audit_without_attacks_says_that_it_was_skipped(llama: Sample) -> None:
    record = audit(llama.original, llama.converted, Audit(attacks=()), silent)
    assert record.attacks == ()
    assert record.skipped


def test_every_attack_has_a_name_in_the_config_and_a_threshold() -> None:
    assert set(get_args(AttackName)) == {*ATTACKS, *TRAININGS} == set(Thresholds.model_fields)


def test_every_attack_is_registered_under_its_own_name() -> None:
    assert all(name == attack.name for name, attack in (ATTACKS | TRAININGS).items())


def test_an_unknown_attack_is_refused_by_name() -> None:
    assert named(None) == Audit()
    assert named(["collapse", "collapse"]).attacks == ("collapse",)
    with pytest.raises(BadInput, match="attack `guessing` is not known"):
        named(["guessing"])
