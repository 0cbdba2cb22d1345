"""What is fitted has the same bits on any number of threads, and what is written has a core to itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from taylor_ops.config.conversion import Basis, Conversion
from taylor_ops.machine.threads import on_one_thread, threads_restored, use_threads
from taylor_ops.model.original import Original
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.model.shards import write_tensors
from taylor_ops.series.activations import activation_named
from taylor_ops.series.bound import OutputWeights
from taylor_ops.series.expansion import coefficients
from taylor_ops.series.fitted_layer import fit_layer
from taylor_ops.series.ranges import LayerRange
from taylor_ops.storage.files import canonical_json, read_json, write_text
from tests.support.tiny_models import save_tiny_model

NEURONS = 1003


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    with threads_restored():
        yield


def fitted(activation: str, basis: Basis) -> list[Tensor]:
    """All of a fitted layer of random ranges that decides bytes."""
    generator = torch.Generator().manual_seed(0)

    def random() -> Tensor:
        return torch.rand(NEURONS, generator=generator, dtype=torch.float64)

    weights = OutputWeights(norms=0.5 + random(), peaks=0.1 + random(), rows=4096, alignment=3.0)
    captured = LayerRange(-1 - 6 * random(), 0.5 + 4 * random(), 0.5 + 5 * random(), 2000.0, weights)
    layer = fit_layer(activation_named(activation), captured, Conversion(basis=basis))
    orders = layer.orders(0.5, 128).clamp_max(128)
    bound = layer.bound(orders)
    return [layer.allowed, orders, coefficients(layer.expansion, orders), bound.truncation, bound.rounding]


@pytest.mark.parametrize("threads", [3, 5])
@pytest.mark.parametrize("basis", ["chebyshev", "taylor"])
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_new"])
def test_a_fit_is_the_same_bit_for_bit_on_any_number_of_threads(activation: str, basis: Basis, threads: int) -> None:
    use_threads(1)
    alone = fitted(activation, basis)
    use_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(alone, fitted(activation, basis), strict=True))


def test_the_number_of_threads_is_restored_after_an_error_too() -> None:
    @on_one_thread
    def fails() -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    use_threads(3)
    with pytest.raises(KeyboardInterrupt):
        fails()
    assert torch.get_num_threads() == 3


def test_rows_are_made_on_one_thread_while_others_are_written(tmp_path: Path) -> None:
    threads: list[int] = []

    def blocks() -> Iterator[Tensor]:
        for _ in range(3):
            threads.append(torch.get_num_threads())
            yield torch.ones(1, 4)

    use_threads(3)
    write_tensors({"x": ByRows((3, 4), torch.float32, blocks)}, tmp_path / "x.safetensors")
    assert threads == [1, 1, 1]
    assert torch.get_num_threads() == 3


def test_models_of_several_threads_leave_the_dtype_of_torch_as_it_was(tmp_path: Path) -> None:
    # transformers sets the dtype of a model for the whole process while it makes one.
    original = save_tiny_model(tmp_path / "original")
    config = read_json(original / "config.json") | {"dtype": "bfloat16"}
    write_text(original / "config.json", canonical_json(config))
    seen: set[torch.dtype] = set()
    usual = torch.set_default_dtype

    def noting(dtype: torch.dtype) -> None:
        seen.add(dtype)
        usual(dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_default_dtype", noting)
        read = Original(original)
        assert read.shapes
    assert seen <= {torch.float32}
    assert read.config.dtype == torch.bfloat16
