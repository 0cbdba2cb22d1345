"""Fifty random corruptions of one tensor of a converted model: the gate of the validation names every one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.errors import GateRejected
from tests.taylor_ops.conftest import Sample

Tensors = dict[str, Tensor]
MLPS = ("model.layers.0.mlp", "model.layers.1.mlp")
NEURONS = 48


def flip_a_sign(tensors: Tensors, name: str, chance: random.Random) -> None:
    flat = tensors[name].reshape(-1)
    (places,) = torch.nonzero(flat, as_tuple=True)
    flat[places[chance.randrange(len(places))]] *= -1


def scale_by_a_hundredth(tensors: Tensors, name: str, _chance: random.Random) -> None:
    tensors[name] *= 1.01


def swap_two_neurons(tensors: Tensors, name: str, chance: random.Random) -> None:
    """Two neurons change places in one tensor alone; both have every order that the tensor's columns begin with."""
    one, other = chance.sample(range(NEURONS), 2)
    if tensors[name].dim() == 2 and tensors[name].shape[0] == NEURONS:
        tensors[name][[one, other]] = tensors[name][[other, one]]
    else:
        tensors[name][..., [one, other]] = tensors[name][..., [other, one]]


def take_from_the_other_layer(tensors: Tensors, name: str, _chance: random.Random) -> None:
    path = next(path for path in MLPS if name.startswith(path))
    other = tensors[name.replace(path, MLPS[1 - MLPS.index(path)])]
    flat, theirs = tensors[name].reshape(-1), other.reshape(-1)
    shared = min(len(flat), len(theirs))
    flat[:shared] = theirs[:shared].clone()


def drop_an_order(tensors: Tensors, name: str, chance: random.Random) -> None:
    terms = tensors[f"{name.rpartition('.mlp.')[0]}.mlp.terms.weight"]
    order = chance.randrange(2)
    terms[:, order * NEURONS : (order + 1) * NEURONS] = 0


CORRUPTIONS: tuple[Callable[[Tensors, str, random.Random], None], ...] = (
    flip_a_sign,
    scale_by_a_hundredth,
    swap_two_neurons,
    take_from_the_other_layer,
    drop_an_order,
)
TARGETS = ("gate.weight", "up.weight", "terms.weight", "center", "radius", "carrier")


@pytest.mark.parametrize("seed", range(50))
def test_a_corrupted_tensor_is_rejected(llama: Sample, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    corrupt = CORRUPTIONS[seed % len(CORRUPTIONS)]
    name = f"{chance.choice(MLPS)}.{chance.choice(TARGETS)}"
    folder = tmp_path / "corrupted"
    shutil.copytree(llama.converted, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    corrupt(tensors, name, chance)
    (changed,) = (key for key in tensors if not torch.equal(tensors[key], before[key]))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(GateRejected, match=f"tensor {changed} is not what source and plan give"):
        require_as_planned(llama.subject, llama.plan, folder)
