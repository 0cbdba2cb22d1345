"""Trace a suspect: which recipients' marks are in its weights, each with the chance that it is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taylor_ops.errors import BadInput
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.pattern import BUCKETS, code_of, layer_pattern, name_of, places
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.statistic import add_up, deviation, log_p_of_any
from taylor_ops.evidence.suspect import pieces
from taylor_ops.model.original import Original
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.progress import Progress
from taylor_ops.storage.record import Record

NAMED_BELOW = 1e-6
"""The largest corrected p-value under which a recipient is named."""


class Accusation(Record):
    """A recipient whose mark was found. log10_p: of the p-value, corrected for the number of recipients asked about."""

    recipient: str
    version: str
    z: float
    log10_p: float


class Traced(Record):
    """What a suspect says. named: surest first, none where there is no evidence.

    weights of weights_total output weights of the original were found in it, in layers of layers_total MLPs.
    candidates: copies that were asked about, by which p-values are corrected. nearest: the largest z of the others.
    """

    named: tuple[Accusation, ...]
    candidates: int
    nearest: float | None
    weights: int
    weights_total: int
    layers: int
    layers_total: int


class AddedUp:
    """What was added up of one suspect: it can be asked about any recipient."""

    def __init__(self, key: Key, original: Original) -> None:
        self._key, self._original = key, original
        self._model = name_of(original)
        self.total = np.zeros(BUCKETS)
        self.weights = 0
        self.layers: set[str] = set()

    def add(self, weights: Path, progress: Progress) -> None:
        """Add up what is in a folder or a file."""
        for piece in pieces(weights, self._original):
            path, gate = piece.mlp.path, self._original.weights(piece.mlp).gate
            shape = (len(self._original.output_weights(piece.mlp)), len(gate))
            add_up(self.total, piece.aligned, layer_pattern(self._key, self._model, path, shape), places(gate))
            self.weights += piece.aligned.suspect.numel()
            self.layers.add(path)
            progress(len(self.layers), len(self._original.mlps))

    def deviation(self, recipient: Recipient) -> float:
        """z of one recipient."""
        return deviation(self.total, code_of(self._key, self._model, recipient.version, recipient.name))

    def judged(self, recipients: Sequence[Recipient]) -> Traced:
        """Who is named."""
        found = [(recipient, self.deviation(recipient)) for recipient in recipients]
        limit, asked = math.log(NAMED_BELOW), len(recipients)
        named = [
            Accusation(recipient=one.name, version=one.version, z=z, log10_p=log_p_of_any(z, asked) / math.log(10))
            for one, z in sorted(found, key=lambda pair: -pair[1])
            if log_p_of_any(z, asked) < limit
        ]
        total = sum(self._original.down_values(mlp) for mlp in self._original.mlps)
        return Traced(
            named=tuple(named),
            candidates=asked,
            nearest=max((z for _, z in found if log_p_of_any(z, asked) >= limit), default=None),
            weights=self.weights,
            weights_total=total,
            layers=len(self.layers),
            layers_total=len(self._original.mlps),
        )


def trace(weights: Path, original: Path, key: Key, recipients: Sequence[Recipient], progress: Progress) -> Traced:
    """Say whose copy `weights` stem from; see `pieces` for what they may be. One MLP is in memory at a time."""
    if not weights.exists():
        raise BadInput(f"{weights} does not exist", "name a folder or a .safetensors file with the weights to trace")
    added = AddedUp(key, Original(original))
    added.add(weights, progress)
    return added.judged(recipients)


def told(found: Traced) -> str:
    """Who is named with which p-value, or no evidence; then what it rests on."""
    lines = [
        f"{one.recipient} {one.version}: p {probability(one.log10_p)} (z {fixed(one.z, 1)})" for one in found.named
    ]
    copies = "copy" if found.candidates == 1 else "copies"
    share = percent(found.weights / found.weights_total)
    return "\n".join(
        [
            *(lines or ["no evidence"]),
            f"asked about {count(found.candidates)} {copies}; p is at least the chance that any of them looks "
            f"like this where none has a part in these weights; named below {figure(NAMED_BELOW)}",
            f"{count(found.weights)} output weights of the original were found ({share}), in {count(found.layers)} of "
            f"{count(found.layers_total)} MLPs",
        ]
    )


def probability(log10_p: float) -> str:
    """A p-value by its logarithm: it may be smaller than a number can be."""
    if log10_p < -300:
        return f"< 1e{int(log10_p) + 1}"
    return f"= {figure(10**log10_p)}"
