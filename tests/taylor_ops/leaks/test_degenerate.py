"""Lines of weights that tell nothing, such as pruned ones, are no leak, and a leak among them is still refused."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.errors import GateRejected
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.telling import bare_columns
from taylor_ops.leaks.texts import Machine
from taylor_ops.leaks.weights import Found, ProtectedLines
from taylor_ops.storage.files import sha256_of_tree
from tests.support.tiny_models import save_tiny_model
from tests.taylor_ops.conftest import Sample, captured, converted, silent

WEIGHTS = "model-00001-of-00001.safetensors"
HERE = Machine("anna.berg", "gpu-box-17.lab.example", (), ())
HIDDEN, WIDE = 64, 96


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def zero_columns(w: Tensor) -> Tensor:
    w[:, ::4] = 0
    return w


def zero_rows(w: Tensor) -> Tensor:
    w[:20] = 0
    return w


def zero(w: Tensor) -> Tensor:
    return w.zero_()


def constant_columns(w: Tensor) -> Tensor:
    w[:, ::4] = 0.25
    return w


def nearly_constant_columns(w: Tensor) -> Tensor:
    w[:, ::4] = 0.25 + 1e-4 * w[:, ::4]
    return w


def repeated_columns(w: Tensor) -> Tensor:
    w[:, : WIDE // 2] = w[:, :1]
    return w


def nearly_empty_columns(w: Tensor) -> Tensor:
    w[3:, ::4] = 0
    return w


def two_levels(w: Tensor) -> Tensor:
    return w.sign() * 0.5


KINDS: list[Callable[[Tensor], Tensor]] = [
    zero_columns,
    zero_rows,
    constant_columns,
    nearly_constant_columns,
    repeated_columns,
    nearly_empty_columns,
    two_levels,
]


def found_in(down: Tensor, tensor: Tensor) -> list[Found]:
    layer = SimpleNamespace(path="0")
    lines = ProtectedLines([layer], lambda _mlp: down)  # type: ignore[list-item]
    return lines.look_into("tensor", tensor) + lines.proven()


@pytest.mark.parametrize("make", [*KINDS, zero], ids=lambda make: make.__name__)
def test_tensors_that_any_model_has_are_no_leak(make: Callable[[Tensor], Tensor]) -> None:
    down = make(noise(HIDDEN, WIDE))
    empty = torch.zeros(3 * HIDDEN, WIDE)
    single = empty.clone()
    single[::7, ::5] = 1.0
    for tensor in (empty, torch.ones(4 * WIDE), torch.full((HIDDEN, WIDE), 0.25), single, torch.eye(WIDE)):
        assert found_in(down, tensor) == []
    other = make(noise(HIDDEN, WIDE, seed=1))
    assert found_in(down, other) == []


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("how", ["as it is", "permuted, negated and scaled", "in bfloat16"])
def test_a_leak_of_a_matrix_with_such_lines_is_found(make: Callable[[Tensor], Tensor], how: str) -> None:
    down = make(noise(HIDDEN, WIDE))
    leaks = {
        "as it is": down,
        "permuted, negated and scaled": -3 * down[:, torch.randperm(WIDE)],
        "in bfloat16": down.bfloat16(),
    }
    (found,) = found_in(down, leaks[how])
    assert found.mlp == "0"


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_columns_as_trained_are_counted_without_those_that_tell_nothing(make: Callable[[Tensor], Tensor]) -> None:
    down = make(noise(HIDDEN, WIDE))
    coefficients = 0.3 + torch.rand(WIDE, generator=torch.Generator().manual_seed(2))
    assert bare_columns(down, down * coefficients)[0] == 0
    bare, columns = bare_columns(down, torch.cat([down, down * coefficients], dim=1))
    assert bare == columns == int((down != down[:1]).any(0).sum())


def test_a_repeated_column_that_is_once_as_trained_by_chance_counts_once() -> None:
    down = noise(HIDDEN, 1).expand(-1, WIDE).contiguous()
    coefficients = torch.full((WIDE,), 0.5)
    coefficients[3] = 1.0
    assert bare_columns(down, down * coefficients) == (1, WIDE)


@pytest.fixture(scope="module", params=["pruned neurons", "a block that adds nothing", "rows without weights"])
def pruned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A model of which some output weights are zero, converted."""
    root = tmp_path_factory.mktemp("pruned")
    original = save_tiny_model(root / "original", "llama")
    path = original / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if request.param == "pruned neurons":
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                tensor[::4] = 0
            if name.endswith("down_proj.weight"):
                tensor[:, ::4] = 0
        elif request.param == "rows without weights" and name.endswith("down_proj.weight"):
            tensor[:16] = 0
        elif name.endswith(("layers.1.mlp.down_proj.weight", "layers.1.self_attn.o_proj.weight")):
            tensor.zero_()
    save_file(tensors, path, metadata={"format": "pt"})
    return converted(
        original, captured(original, root / "ranges"), Conversion(tolerance=1e-3, range_margin=0.5), root / "converted"
    )


def look(sample: Sample) -> None:
    files = sha256_of_tree(sample.converted)
    require_no_leak(sample.converted, files, sample.original, {}, sample.record.layers, [], HERE, silent)


def test_a_bundle_of_a_model_with_zero_weights_passes_and_its_leaks_do_not(pruned: Sample) -> None:
    look(pruned)
    stored = load_file(pruned.converted / WEIGHTS)
    secret = load_file(pruned.original / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    terms = "model.layers.0.mlp.terms.weight"
    bare = torch.cat([secret, stored[terms][:, secret.shape[1] :]], dim=1)
    for name, planted, says in (
        ("model.extra", secret.flip(0), "holds protected weights of model.layers.0.mlp"),
        (terms, bare, "holds the output weights of"),
    ):
        save_file(stored | {name: planted.contiguous()}, pruned.converted / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(GateRejected, match=says):
            look(pruned)
    save_file(stored, pruned.converted / WEIGHTS, metadata={"format": "pt"})
