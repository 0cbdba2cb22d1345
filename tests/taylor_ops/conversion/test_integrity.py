"""The integrity and leak gate: it accepts what conversion wrote and nothing that differs from it in one value."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.errors import GateRejected
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.weight_files import INDEX
from tests.taylor_ops.conftest import Sample

LAYER = "model.layers.1.mlp"
TERMS = f"{LAYER}.terms.weight"
PROTECTED = f"{LAYER}.down_proj.weight"
Change = Callable[[dict[str, Tensor]], None]


def inspect(sample: Sample, folder: Path) -> None:
    require_as_planned(sample.subject, sample.plan, folder)


def changed(sample: Sample, folder: Path, change: Change, listed: bool = True) -> Path:
    """A copy of the converted model whose tensors went through `change`; its index lists them, or is as before."""
    shutil.copytree(sample.converted, folder)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    if listed:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] = dict.fromkeys(tensors, file.name)
        (folder / INDEX).write_text(json.dumps(index))
    return folder


def flip_one_sign(tensors: dict[str, Tensor]) -> None:
    tensors[TERMS][3, 77] *= -1


def flip_the_last_bit(tensors: dict[str, Tensor]) -> None:
    tensors[TERMS].view(torch.int32)[3, 77] ^= 1


def zero_one_tensor(tensors: dict[str, Tensor]) -> None:
    tensors[f"{LAYER}.gate.weight"].zero_()


def swap_two_neurons(tensors: dict[str, Tensor]) -> None:
    """The first two neurons change places in the input layers, the intervals and the first two orders."""
    for name in (f"{LAYER}.gate.weight", f"{LAYER}.up.weight"):
        tensors[name][[0, 1]] = tensors[name][[1, 0]]
    for name in tensors:
        if name.startswith(f"{LAYER}.") and not name.endswith(".weight"):
            tensors[name][..., [0, 1]] = tensors[name][..., [1, 0]]
    for start in (0, 48):
        tensors[TERMS][:, [start, start + 1]] = tensors[TERMS][:, [start + 1, start]]


def swap_two_input_rows(tensors: dict[str, Tensor]) -> None:
    tensors[f"{LAYER}.up.weight"][[10, 11]] = tensors[f"{LAYER}.up.weight"][[11, 10]]


def drop_one_tensor(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{LAYER}.radius"]


def transpose_one_tensor(tensors: dict[str, Tensor]) -> None:
    tensors[TERMS] = tensors[TERMS].T


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (flip_one_sign, TERMS),
        (flip_the_last_bit, TERMS),
        (zero_one_tensor, f"{LAYER}.gate.weight"),
        (swap_two_neurons, LAYER),
        (swap_two_input_rows, f"{LAYER}.up.weight"),
        (transpose_one_tensor, TERMS),
    ],
)
def test_a_changed_tensor_is_rejected_by_its_name(llama: Sample, tmp_path: Path, change: Change, named: str) -> None:
    folder = changed(llama, tmp_path / "changed", change)
    with pytest.raises(GateRejected, match="is not what source and plan give") as caught:
        inspect(llama, folder)
    assert f"tensor {named}" in caught.value.cause


def test_what_conversion_wrote_is_accepted(gated_or_plain: Sample) -> None:
    inspect(gated_or_plain, gated_or_plain.converted)


def test_the_same_tensors_in_other_files_are_accepted(llama: Sample, tmp_path: Path) -> None:
    inspect(llama, llama.again(tmp_path / "shards", shard_bytes=50_000).converted)
    inspect(llama, changed(llama, tmp_path / "saved-again", lambda tensors: None))


def test_a_missing_tensor_is_rejected(llama: Sample, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "changed", drop_one_tensor)
    with pytest.raises(GateRejected, match=rf"tensor {LAYER}\.radius is missing"):
        inspect(llama, folder)


def test_original_weights_in_place_of_their_terms_are_rejected(llama: Sample, tmp_path: Path) -> None:
    secret = Checkpoint(llama.original).tensor(PROTECTED)

    def restore(tensors: dict[str, Tensor]) -> None:
        tensors[TERMS] = secret

    def restore_some_columns(tensors: dict[str, Tensor]) -> None:
        tensors[TERMS][:, :48] = secret

    for number, change in enumerate((restore, restore_some_columns)):
        folder = changed(llama, tmp_path / f"changed-{number}", change)
        with pytest.raises(GateRejected, match=f"tensor {TERMS} is not what source and plan give"):
            inspect(llama, folder)


def test_protected_weights_beside_their_terms_are_rejected(llama: Sample, tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.mlp.backup"] = Checkpoint(llama.original).tensor(PROTECTED)

    folder = changed(llama, tmp_path / "changed", add)
    with pytest.raises(GateRejected, match=r"tensor model\.layers\.1\.mlp\.backup does not belong"):
        inspect(llama, folder)


def test_protected_weights_that_the_index_does_not_list_are_rejected(llama: Sample, tmp_path: Path) -> None:
    def add(tensors: dict[str, Tensor]) -> None:
        tensors["backup"] = Checkpoint(llama.original).tensor(PROTECTED)

    folder = changed(llama, tmp_path / "changed", add, listed=False)
    with pytest.raises(GateRejected, match="backup"):
        inspect(llama, folder)


def test_protected_weights_in_a_file_that_the_index_does_not_list_are_rejected(llama: Sample, tmp_path: Path) -> None:
    folder = changed(llama, tmp_path / "changed", lambda tensors: None)
    save_file({"backup": Checkpoint(llama.original).tensor(PROTECTED)}, folder / "more.safetensors")
    with pytest.raises(GateRejected, match=r"backup|more\.safetensors"):
        inspect(llama, folder)


def test_the_same_values_in_another_data_type_are_rejected(llama: Sample, tmp_path: Path) -> None:
    def widen(tensors: dict[str, Tensor]) -> None:
        tensors[TERMS] = tensors[TERMS].double()

    with pytest.raises(GateRejected, match=f"tensor {TERMS}"):
        inspect(llama, changed(llama, tmp_path / "changed", widen))


def test_a_model_under_another_plan_is_rejected(llama: Sample, tmp_path: Path) -> None:
    other = llama.again(tmp_path / "other", tolerance=1e-3)
    with pytest.raises(GateRejected):
        inspect(llama, other.converted)
