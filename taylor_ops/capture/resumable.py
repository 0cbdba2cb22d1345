"""Work layer by layer that survives a kill: what was found of each layer, and what each batch brings to the next."""

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
"""Bytes of states that stay on the device beside their files; the others are read back from there."""


class Unfinished:
    """Layers that are finished one by one, in order, in a folder; the next run that is given the folder goes on.

    layers: how many are finished.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self._device, self._room = device, _IN_MEMORY
        self._held: dict[tuple[int, int], State] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.layers = next(layer for layer in count() if not self._found(layer).exists())
        for states in folder.glob("states-*"):
            if states != self._states(self.layers):
                shutil.rmtree(states)

    @property
    def bytes(self) -> int:
        """Bytes of what batches bring to the layer at work, as far as that is written."""
        return sum(file.stat().st_size for file in self._states(self.layers).glob("*"))

    def _found(self, layer: int) -> Path:
        return self.folder / f"found-{layer}.safetensors"

    def _states(self, layer: int) -> Path:
        return self.folder / f"states-{layer}"

    def read(self, layer: int, batch: int) -> State:
        """What a batch brings to a layer; to be asked for once."""
        held = self._held.pop((layer, batch), None)
        if held is not None:
            self._room += _bytes(held)
            return held
        state = load_file(self._states(layer) / f"{batch}.safetensors")
        # A copy lies in memory as tensors do that torch makes: on how they lie the last bits of a sum may depend.
        return {name: tensor.to(self._device, copy=True) for name, tensor in state.items()}

    def write(self, layer: int, batch: int, state: State) -> None:
        """Keep what a batch brings to a layer.

        It is written even where it is held: the layer before it has computed thousands of operations for each of these
        bytes, and without them the run after a kill would have to compute all layers again.
        """
        self._states(layer).mkdir(exist_ok=True)
        on_cpu = {name: tensor.cpu() for name, tensor in state.items()}
        save_tensors(on_cpu, self._states(layer) / f"{batch}.safetensors")
        if _bytes(state) <= self._room:
            self._room -= _bytes(state)
            self._held[layer, batch] = state

    def finish(self, layer: int, found: dict[str, Tensor]) -> None:
        """Keep what was found of a layer; with that it is finished, and all that goes on from it is on disk."""
        partial = self.folder / "found.partial"
        save_tensors({name: tensor.cpu() for name, tensor in found.items()}, partial)
        partial.replace(self._found(layer))
        shutil.rmtree(self._states(layer))
        self.layers = layer + 1

    def found(self) -> dict[str, Tensor]:
        """What was found of all finished layers."""
        layers = [load_file(self._found(layer)) for layer in range(self.layers)]
        return {name: value for layer in layers for name, value in layer.items()}


def _bytes(state: State) -> int:
    return sum(tensor.nbytes for tensor in state.values())
