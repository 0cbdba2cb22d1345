"""A bundle as an attacker sees it: its protected layers, and the dense architecture that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.attacks.protected_layer import INPUTS, ProtectedLayer
from taylor_ops.errors import WorkFailed
from taylor_ops.machine.devices import DTYPES
from taylor_ops.model.architectures import Mlp
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.original import Original
from taylor_ops.model.shards import write_shards
from taylor_ops.storage.files import (
    canonical_json,
    disk_errors_explained,
    link_or_copy,
    read_json,
    require_free,
    write_text,
)

_SHARD_BYTES = 500_000_000
_CPU = torch.device("cpu")
_BUNDLE_KEYS = ("architectures", "auto_map", "taylor_mlp")


class Target:
    """A bundle under attack. Only the files of its folder are read.

    Args:
        bundle: Folder of the bundle.
        scratch: Folder that receives the rebuilt model.
        device: Device on which the layers are attacked.

    Attributes:
        dtype: Name of the dtype of the bundle.
        dense: The dense model in `scratch`, which has no weights before `rebuild`.
    """

    def __init__(self, bundle: Path, scratch: Path, device: torch.device = _CPU) -> None:
        config = read_json(bundle / "config.json")
        self._bundle, self._scratch, self._device = bundle, scratch, device
        self._released, self._taylor = Checkpoint(bundle), config["taylor_mlp"]
        dense = {key: value for key, value in config.items() if key not in _BUNDLE_KEYS}
        dense["model_type"] = dense["model_type"].removeprefix("taylor_")
        scratch.mkdir(parents=True, exist_ok=True)
        write_text(scratch / "config.json", canonical_json(dense))
        self.dtype: str = dense["dtype"]
        self.dense = Original(scratch)

    def layers(self) -> Iterator[ProtectedLayer]:
        """Every protected MLP, first layer first."""
        yield from map(self._layer, self.dense.mlps)

    def _layer(self, mlp: Mlp) -> ProtectedLayer:
        widths, basis = self._taylor["layers"][mlp.path], self._taylor["basis"]
        return ProtectedLayer(self._released, mlp, widths, basis, self.dense.activation, self._device)

    def rebuild(self, weights_of: Callable[[ProtectedLayer], Tensor]) -> Path:
        """Write the dense model with the output weights [H, P] from `weights_of` in place of the terms.

        One layer is in memory at a time. Neurons keep the order of the bundle, on which no output depends. Returns the
        folder of the model.
        """
        needed = self.dense.bytes(DTYPES[self.dtype])
        with disk_errors_explained(self._scratch, needed):
            require_free(self._scratch, needed)
            write_shards(self._scratch, self._tensors(weights_of), _SHARD_BYTES)
        generation = self._bundle / "generation_config.json"
        if generation.exists() and not (self._scratch / generation.name).exists():
            link_or_copy(generation, self._scratch / generation.name)
        wrong = sorted(Original(self._scratch).unfit())
        if wrong:
            raise WorkFailed(
                f"tensor {wrong[0]} of the rebuilt model was not made",
                "this is a defect of taylor_ops/attacks/target.py",
            )
        return self._scratch

    def _tensors(self, weights_of: Callable[[ProtectedLayer], Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name in self.dense.names():
            yield name, self._released.tensor(name)
        for module, mlps in groupby(self.dense.mlps, key=lambda mlp: mlp.module):
            members = list(mlps)
            made = [_dense(layer, weights_of(layer)) for layer in map(self._layer, members)]
            for name in made[0]:
                tensors = [mlp[name] for mlp in made]
                ending = name if members[0].expert is None else name.removesuffix(".weight")
                yield f"{module}.{ending}", tensors[0] if members[0].expert is None else torch.stack(tensors)


def _dense(layer: ProtectedLayer, weights: Tensor) -> dict[str, Tensor]:
    """The tensors of one dense MLP, by their names below its module."""
    kind, unprotected = layer.mlp.kind, layer.unprotected
    inputs = {name: layer.tensor(name) for name in INPUTS if layer.has(name)}
    down: dict[str, Tensor] = {f"{kind.down}.weight": torch.cat([weights.to(unprotected), unprotected], dim=1)}
    if layer.has("terms.bias"):
        down[f"{kind.down}.bias"] = layer.tensor("terms.bias")
    made: dict[str, Tensor] = {}
    for name, tensor in inputs.items():
        role, _, ending = name.partition(".")
        dense_name = f"{kind.gate if role == 'gate' else kind.up}.{ending}"
        made[dense_name] = torch.cat([made[dense_name], tensor]) if dense_name in made else tensor
    made |= down
    if kind.transposed:
        made = {name: tensor.T if tensor.dim() == 2 else tensor for name, tensor in made.items()}
    return {name: tensor.contiguous() for name, tensor in made.items()}
