"""Resumable layer-by-layer work: the result of each finished layer, and the hidden states that the next one needs."""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from taylor_ops.capture.layerwise import State
from taylor_ops.model.shards import save_tensors

_IN_MEMORY = 1 << 30
"""Bytes of states that stay on the device as well as in their files. All others are read back from their files."""


class Unfinished:
    """Work that finishes layers in order and keeps them in a folder. The next run with this folder resumes it.

    Attributes:
        folder: Where results and states are kept.
        layers: How many layers are finished.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self._device, self._room = device, _IN_MEMORY
        self._on_device: dict[tuple[int, int], State] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.layers = next(layer for layer in count() if not self._result(layer).exists())
        for states in folder.glob("states-*"):
            if states != self._states(self.layers):
                shutil.rmtree(states)

    @property
    def bytes(self) -> int:
        """Bytes already written of the states that batches bring to the layer at work."""
        return sum(file.stat().st_size for file in self._states(self.layers).glob("*"))

    def _result(self, layer: int) -> Path:
        return self.folder / f"found-{layer}.safetensors"

    def _states(self, layer: int) -> Path:
        return self.folder / f"states-{layer}"

    def read(self, layer: int, batch: int) -> State:
        """The state that a batch brings to a layer. Each state can be read once."""
        cached = self._on_device.pop((layer, batch), None)
        if cached is not None:
            self._room += _bytes(cached)
            return cached
        state = load_file(self._states(layer) / f"{batch}.safetensors")
        # A copy is aligned in memory as torch aligns its own tensors, and the last bits of a sum may depend on that.
        return {name: tensor.to(self._device, copy=True) for name, tensor in state.items()}

    def write(self, layer: int, batch: int, state: State) -> None:
        """Keep the state that a batch brings to a layer.

        It is written to disk even if it stays on the device. The layer before it spent thousands of operations on each
        of these bytes, and without them a run after a kill would have to compute all layers again.
        """
        self._states(layer).mkdir(exist_ok=True)
        on_cpu = {name: tensor.cpu() for name, tensor in state.items()}
        save_tensors(on_cpu, self._states(layer) / f"{batch}.safetensors")
        if _bytes(state) <= self._room:
            self._room -= _bytes(state)
            self._on_device[layer, batch] = state

    def finish(self, layer: int, found: dict[str, Tensor]) -> None:
        """Keep the result of a layer, which is finished with that: the next layer finds all that it needs on disk."""
        partial = self.folder / "found.partial"
        save_tensors({name: tensor.cpu() for name, tensor in found.items()}, partial)
        partial.replace(self._result(layer))
        shutil.rmtree(self._states(layer))
        self.layers = layer + 1

    def found(self) -> dict[str, Tensor]:
        """The results of all finished layers, by name."""
        layers = [load_file(self._result(layer)) for layer in range(self.layers)]
        return {name: value for layer in layers for name, value in layer.items()}


def _bytes(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())
