"""A trace names the recipient of what a copy became, and nobody where there is no mark, or not with this key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.descendants import fine_tuned, in_bfloat16, lora_tuned, merged, noisy, pruned, rounded_to
from taylor_ops.attacks import rank_one
from taylor_ops.attacks.protected_layer import ProtectedLayer
from taylor_ops.attacks.target import Target
from taylor_ops.config.audit import Audit
from taylor_ops.config.evidence import STRENGTH as DEFAULT
from taylor_ops.errors import BadInput
from taylor_ops.evidence.marking import MarkedModel
from taylor_ops.evidence.trace import in_words
from taylor_ops.storage.files import read_json
from tests.support.evidence_example import (
    LARGER,
    OTHER_KEY,
    RECIPIENTS,
    WEIGHTS,
    copy_for,
    marked_original,
    named,
    traced,
    with_tensors,
)
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import Sample, sample, silent

ACME, BETA = 7, 23
# A tiny model has few marked weights: under noise it takes a stronger mark than a real model does.
STRENGTH = 0.08
LAYER = "model.layers.{}.mlp.down_proj.weight"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("original"), **LARGER)


@pytest.fixture(scope="module")
def acme(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marked_original(original, copy_for(ACME, STRENGTH), tmp_path_factory.mktemp("acme"))


@pytest.fixture(scope="module")
def beta(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marked_original(original, copy_for(BETA, STRENGTH), tmp_path_factory.mktemp("beta"))


def rearranged(tensors: Tensors) -> Tensors:
    """Neurons in another order, and each with another scale and sign of its output weights."""
    changed, generator = dict(tensors), torch.Generator().manual_seed(1)
    for layer in range(2):
        order = torch.randperm(384, generator=generator)
        scale = torch.rand(384, generator=generator) * 3 + 0.1
        scale *= torch.where(torch.rand(384, generator=generator) < 0.5, -1, 1)
        for role, by in (("gate", None), ("up", 1 / scale[order, None]), ("down", None)):
            name = f"model.layers.{layer}.mlp.{role}_proj.weight"
            weight = tensors[name][:, order] * scale[order] if role == "down" else tensors[name][order]
            changed[name] = weight if by is None else weight * by
    return changed


DESCENDANTS: dict[str, Callable[[Tensors], Tensors]] = {
    "as it is": dict,
    "bfloat16": in_bfloat16,
    "int8": rounded_to(8),
    "int4": rounded_to(4),
    "pruned by 30 %": pruned(0.3),
    "5 % noise": noisy(0.05),
    "rearranged": rearranged,
    "rearranged and int8": lambda tensors: rounded_to(8)(rearranged(tensors)),
}


@pytest.mark.parametrize("change", DESCENDANTS.values(), ids=DESCENDANTS)
def test_the_recipient_is_named_whatever_was_done_to_the_weights(
    original: Path, acme: Path, tmp_path: Path, change: Callable[[Tensors], Tensors]
) -> None:
    suspect = with_tensors(acme, change(load_file(acme / WEIGHTS)), tmp_path)
    found = traced(suspect, original)
    assert [one.recipient for one in found.named] == [RECIPIENTS[ACME].name]
    assert found.named[0].log10_p < -9
    assert found.layers == 2
    assert found.weights > 0.99 * found.weights_total


@pytest.mark.parametrize("train", [fine_tuned, lora_tuned])
def test_the_recipient_is_named_after_training(
    original: Path, acme: Path, tmp_path: Path, train: Callable[..., None]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(acme)
    before = model.model.layers[1].mlp.down_proj.weight.detach().clone()
    texts = list(torch.randint(0, 256, (8, 1, 32), generator=torch.Generator().manual_seed(0)))
    train(model, texts, 20)
    assert not torch.equal(model.model.layers[1].mlp.down_proj.weight, before)
    model.save_pretrained(tmp_path)
    assert named(tmp_path, original) == {RECIPIENTS[ACME].name}


def test_both_recipients_of_a_merge_are_named(original: Path, acme: Path, beta: Path, tmp_path: Path) -> None:
    suspect = with_tensors(acme, merged(load_file(acme / WEIGHTS), load_file(beta / WEIGHTS)), tmp_path)
    assert named(suspect, original) == {RECIPIENTS[ACME].name, RECIPIENTS[BETA].name}


# Bundles, and what attacks make of them


def recovered(layer: ProtectedLayer) -> Tensor:
    return rank_one.recover(layer, Audit()).weights


def marked(sample: Sample, number: int, strength: float, folder: Path) -> Path:
    folder.mkdir()
    MarkedModel(sample.converted, copy_for(number, strength)).write(folder, silent)
    return folder


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return sample(tmp_path_factory.mktemp("larger"), "llama", **LARGER)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_recipient_of_a_bundle_and_of_its_rank_one_reconstruction_is_named(
    larger: Sample, tmp_path: Path, dtype: str
) -> None:
    one = larger.again(tmp_path / "converted", dtype=dtype)
    bundle = marked(one, ACME, DEFAULT, tmp_path / "marked")
    rebuilt = Target(bundle, tmp_path / "rebuilt").rebuild(recovered)
    for suspect in (bundle, rebuilt):
        assert named(suspect, one.original) == {RECIPIENTS[ACME].name}
    assert named(one.converted, one.original) == set()


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("phi", {"hidden_size": 64, "intermediate_size": 512}),
        ("mixtral", {"hidden_size": 64, "intermediate_size": 128}),
    ],
)
def test_the_recipient_of_plain_mlps_with_neurons_in_clear_and_of_experts_is_named(
    tmp_path: Path, family: str, sizes: dict[str, int]
) -> None:
    whole = sample(tmp_path, family, **sizes)
    some = whole.again(tmp_path / "some", min_protected=0.6)
    assert some.record.neurons_protected < some.record.neurons_total
    bundle = marked(some, BETA, DEFAULT, tmp_path / "marked")
    found = traced(bundle, some.original)
    assert [one.recipient for one in found.named] == [RECIPIENTS[BETA].name]
    assert found.weights == found.weights_total
    rebuilt = Target(bundle, tmp_path / "rebuilt").rebuild(recovered)
    assert named(rebuilt, some.original) == {RECIPIENTS[BETA].name}


# Parts


def without_every_other(down: Tensor) -> Tensor:
    """Every other neuron put to zero."""
    kept = down.clone()
    kept[:, ::2] = 0
    return kept


def beside_others(down: Tensor) -> Tensor:
    """As many columns again that are nobody's."""
    foreign = torch.randn(down.shape, generator=torch.Generator().manual_seed(2)) * down.std()
    return torch.cat([down, foreign], dim=1)


PARTS: dict[str, Callable[[Tensors], Tensors]] = {
    "one layer": lambda tensors: {LAYER.format(1): tensors[LAYER.format(1)]},
    "without its name": lambda tensors: {"a": tensors[LAYER.format(1)], "b": tensors["model.norm.weight"]},
    "half of the neurons": lambda tensors: {LAYER.format(1): without_every_other(tensors[LAYER.format(1)])},
    "before as many foreign columns": lambda tensors: {LAYER.format(1): beside_others(tensors[LAYER.format(1)])},
    "transposed": lambda tensors: {"a": tensors[LAYER.format(1)].T},
    "some rows": lambda tensors: {LAYER.format(1): tensors[LAYER.format(1)][17:81]},
    "some columns": lambda tensors: {LAYER.format(1): tensors[LAYER.format(1)][:, 20:300:2].flip(1)},
    "some of both, without a name": lambda tensors: {"a": -2 * tensors[LAYER.format(0)][5:95, ::2].T},
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_of_a_copy_is_enough(
    original: Path, acme: Path, tmp_path: Path, part: Callable[[Tensors], Tensors]
) -> None:
    cut = {name: tensor.contiguous() for name, tensor in part(load_file(acme / WEIGHTS)).items()}
    save_file(cut, tmp_path / "part.safetensors")
    assert named(tmp_path / "part.safetensors", original) == {RECIPIENTS[ACME].name}


# What a suspect says of itself

SECTIONS: dict[str, Any] = {
    "no layers": {"layers": {}},
    "empty": {},
    "a list": [],
    "a list of layers": {"layers": [1]},
    "widths of tensors that are not there": {"layers": {"model.layers.1.mlp": [384, 384]}},
    "no widths": {"layers": {"model.layers.1.mlp": None}},
}


def with_section(model: Path, section: Any) -> Path:
    """The model, whose config says that its MLPs are Taylor MLPs."""
    path = model / "config.json"
    config = read_json(path) | {"taylor_mlp": section}
    # It may be a link to that of another model.
    path.unlink()
    path.write_text(json.dumps(config), encoding="utf-8")
    return model


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_dense_model_that_calls_itself_a_bundle_is_traced(
    original: Path, acme: Path, tmp_path: Path, section: Any
) -> None:
    suspect = with_section(with_tensors(acme, load_file(acme / WEIGHTS), tmp_path / "suspect"), section)
    assert named(suspect, original) == {RECIPIENTS[ACME].name}


@pytest.mark.parametrize(
    "widths",
    [[], [380, 384], [0, 0], [-384, -384], ["384", "384"], 384],
    ids=str,
)
def test_a_bundle_that_states_wrong_widths_is_traced_by_its_other_layers(
    larger: Sample, tmp_path: Path, widths: Any
) -> None:
    bundle = marked(larger, ACME, STRENGTH, tmp_path / "marked")
    section = read_json(bundle / "config.json")["taylor_mlp"]
    section["layers"]["model.layers.0.mlp"] = widths
    assert named(with_section(bundle, section), larger.original) == {RECIPIENTS[ACME].name}


def test_a_model_whose_layers_are_renumbered_is_traced(original: Path, acme: Path, tmp_path: Path) -> None:
    tensors = load_file(acme / WEIGHTS)
    later = {name.replace(".1.", ".2.").replace(".0.", ".1."): tensor for name, tensor in tensors.items()}
    assert LAYER.format(2) in later
    assert LAYER.format(0) not in later
    assert named(with_tensors(acme, later, tmp_path), original) == {RECIPIENTS[ACME].name}


# Nobody


def test_nobody_is_named_with_another_key_another_original_or_where_nothing_is_marked(
    original: Path, acme: Path, tmp_path: Path
) -> None:
    assert named(acme, original, OTHER_KEY) == set()
    assert named(original, original) == set()
    assert (
        named(with_tensors(original, noisy(0.05)(load_file(original / WEIGHTS)), tmp_path / "noisy"), original) == set()
    )
    assert named(acme, save_tiny_model(tmp_path / "foreign", seed=5, **LARGER)) == set()


def test_who_is_not_among_those_asked_about_is_not_named(original: Path, acme: Path) -> None:
    others = [one for number, one in enumerate(RECIPIENTS) if number != ACME]
    found = traced(acme, original, recipients=others)
    assert found.named == ()
    assert found.nearest is not None
    assert found.nearest < 5
    assert in_words(found).startswith("no evidence\n")


def test_the_same_recipient_with_another_version_is_not_named(original: Path, acme: Path) -> None:
    other = [one._replace(version="1.2.1") for one in RECIPIENTS]
    assert traced(acme, original, recipients=other).named == ()


def test_a_place_with_nothing_to_read_is_bad_input(original: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere does not exist"):
        named(tmp_path / "nowhere", original)
    with pytest.raises(BadInput, match="no safetensors file"):
        named(tmp_path, original)
