"""The product with the terms: in pieces where that is read faster, and as the layer has it anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from taylor_ops.machine.threads import threads_restored, use_threads
from taylor_ops.modeling import taylor_mlp
from taylor_ops.modeling.taylor_mlp import TaylorMLP, product


@pytest.fixture
def with_mkl(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where torch was built with MKL and has two threads: the pieces give the same anywhere."""
    monkeypatch.setattr(taylor_mlp, "READS_IN_PIECES", True)
    with threads_restored():
        use_threads(2)
        yield


class Products(TorchDispatchMode):
    """Names of the products of matrices that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in ("mm", "addmm", "bmm", "baddbmm"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def products_of(layer: nn.Module, inputs: Tensor) -> list[str]:
    """The products that torch is asked for where `layer` reads these features."""
    with Products() as products:
        product(layer, inputs)
    return products.names


@pytest.mark.usefixtures("with_mkl")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("height", [8, 40, 64, 192])
@pytest.mark.parametrize("tokens", [0, 1, 3, taylor_mlp.FEW_ROWS])
def test_the_product_in_pieces_is_that_of_the_layer(tokens: int, height: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(257, height, bias=bias).requires_grad_(False), torch.randn(tokens, 257)
    assert products_of(layer, inputs) == ["bmm"]
    torch.testing.assert_close(product(layer, inputs), layer(inputs), rtol=1e-5, atol=1e-5)


class Quantized(Tensor):
    """Stands in for quantized weights, which know the product of a linear layer and are no view of anything."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.view, torch.bmm, torch.baddbmm):
            raise NotImplementedError(func)
        return super().__torch_function__(func, types, args, kwargs or {})


def quantized(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.as_subclass(Quantized), requires_grad=False)


def hooked(layer: nn.Linear) -> None:
    layer.register_forward_hook(lambda *_: None)


def replaced_forward(layer: nn.Linear) -> None:
    """What accelerate does to a layer that it moves."""
    layer.forward = nn.Linear.forward.__get__(layer)  # type: ignore[method-assign]


def trained(layer: nn.Linear) -> None:
    layer.requires_grad_(True)


@pytest.mark.usefixtures("with_mkl")
@pytest.mark.parametrize("changed", [quantized, hooked, replaced_forward, trained])
def test_a_layer_of_which_something_else_was_made_is_called_as_it_is(changed: Callable[[nn.Linear], None]) -> None:
    layer, inputs = nn.Linear(128, 64, bias=False).requires_grad_(False), torch.ones(1, 128)
    assert products_of(layer, inputs) == ["bmm"]
    changed(layer)
    assert products_of(layer, inputs) == ["mm"]


@pytest.mark.usefixtures("with_mkl")
def test_a_product_is_not_in_pieces_where_that_gains_nothing() -> None:
    def plain(height: int = 64) -> nn.Linear:
        return nn.Linear(128, height, bias=False).requires_grad_(False)

    few = torch.ones(1, 128)
    assert products_of(plain(), few) == ["bmm"]
    assert products_of(plain(), torch.ones(taylor_mlp.FEW_ROWS + 1, 128)) == ["mm"]
    assert products_of(plain(60), few) == ["mm"]
    assert products_of(plain().bfloat16(), few.bfloat16()) == ["mm"]
    with torch.autocast("cpu", torch.bfloat16):
        assert products_of(plain(), few) == ["mm"]
        assert product(plain(), few).dtype == torch.bfloat16


@pytest.mark.usefixtures("with_mkl")
@pytest.mark.parametrize(("mkl", "threads"), [(False, 2), (True, 1)])
def test_without_mkl_or_on_one_thread_a_product_is_not_in_pieces(
    monkeypatch: pytest.MonkeyPatch, mkl: bool, threads: int
) -> None:
    monkeypatch.setattr(taylor_mlp, "READS_IN_PIECES", mkl)
    use_threads(threads)
    layer = nn.Linear(128, 64, bias=False).requires_grad_(False)
    assert products_of(layer, torch.ones(1, 128)) == ["mm"]


@pytest.mark.usefixtures("with_mkl")
def test_a_wrong_number_of_features_is_refused_as_by_the_layer() -> None:
    layer = nn.Linear(128, 64).requires_grad_(False)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product(layer, torch.ones(2, 64))


@pytest.fixture
def taylor() -> TaylorMLP:
    """A layer whose terms are of many rows."""
    torch.manual_seed(0)
    layer = TaylorMLP(64, "chebyshev", [24, 24, 10, 3], "silu", gated=True).requires_grad_(False)
    for name, value in {"center": 0.1, "radius": 2.0, "carrier": 0.5}.items():
        layer.get_parameter(name).fill_(value)
    return layer


@pytest.mark.usefixtures("with_mkl")
def test_the_layer_that_ships_reads_its_terms_in_pieces(taylor: TaylorMLP) -> None:
    with torch.no_grad(), Products() as products:
        taylor(torch.ones(1, 64))
    assert products.names == ["mm", "mm", "bmm"]
    assert all(type(layer) is nn.Linear for layer in taylor.children())


@pytest.mark.usefixtures("with_mkl")
def test_one_compiled_layer_serves_few_tokens_and_many(taylor: TaylorMLP) -> None:
    compiled = torch.compile(taylor, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for tokens in (1, 3, taylor_mlp.FEW_ROWS + 1):
            inputs = torch.randn(tokens, 64)
            torch.testing.assert_close(compiled(inputs), taylor(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("with_mkl")
@pytest.mark.parametrize("strict", [True, False])
def test_one_exported_layer_serves_few_tokens_and_many(taylor: TaylorMLP, strict: bool) -> None:
    shapes = {"hidden_states": {0: torch.export.Dim("tokens", min=2, max=256)}}
    with torch.no_grad():
        exported = torch.export.export(taylor, (torch.randn(3, 64),), dynamic_shapes=shapes, strict=strict).module()
        assert not any("bmm" in str(node.target) for node in exported.graph.nodes)
        for tokens in (3, taylor_mlp.FEW_ROWS + 1):
            inputs = torch.randn(tokens, 64)
            torch.testing.assert_close(exported(inputs), taylor(inputs), rtol=1e-4, atol=1e-4)
