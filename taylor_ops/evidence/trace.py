"""Trace a suspect: find the recipients whose marks are in its weights, each with a p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taylor_ops.errors import BadInput
from taylor_ops.evidence.key import Key
from taylor_ops.evidence.pattern import BUCKETS, code_of, layer_pattern, name_of, places
from taylor_ops.evidence.recipients import Recipient
from taylor_ops.evidence.record import Accusation, Traced
from taylor_ops.evidence.statistic import add_up, deviation, log_p_of_any
from taylor_ops.evidence.suspect import pieces
from taylor_ops.model.original import Original
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.progress import Progress

NAMED_BELOW = 1e-6
"""The largest corrected p-value under which a recipient is named."""


class AddedUp:
    """The sums over one suspect, from which any recipient can be judged.

    Attributes:
        total: The sum [65 536] of each bucket.
        weights: Number of output weights of the original that were found.
        layers: Paths of the MLPs that were found.
    """

    def __init__(self, key: Key, original: Original) -> None:
        self._key, self._original = key, original
        self._model = name_of(original)
        self.total = np.zeros(BUCKETS)
        self.weights = 0
        self.layers: set[str] = set()

    def add(self, weights: Path, progress: Progress) -> None:
        """Add the weights in a folder or file of the suspect."""
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
        """Name the recipients whose corrected p-value is small enough."""
        deviations = [(recipient, self.deviation(recipient)) for recipient in recipients]
        limit, candidates = math.log(NAMED_BELOW), len(recipients)
        named = [
            Accusation(
                recipient=recipient.name,
                version=recipient.version,
                z=z,
                log10_p=log_p_of_any(z, candidates) / math.log(10),
            )
            for recipient, z in sorted(deviations, key=lambda pair: -pair[1])
            if log_p_of_any(z, candidates) < limit
        ]
        total = sum(self._original.down_values(mlp) for mlp in self._original.mlps)
        return Traced(
            named=tuple(named),
            candidates=candidates,
            nearest=max((z for _, z in deviations if log_p_of_any(z, candidates) >= limit), default=None),
            weights=self.weights,
            weights_total=total,
            layers=len(self.layers),
            layers_total=len(self._original.mlps),
        )


def trace(weights: Path, original: Path, key: Key, recipients: Sequence[Recipient], progress: Progress) -> Traced:
    """Find whose copy `weights` stem from; `pieces` says what they may be. One MLP is in memory at a time."""
    if not weights.exists():
        raise BadInput(f"{weights} does not exist", "name a folder or a .safetensors file with the weights to trace")
    added = AddedUp(key, Original(original))
    added.add(weights, progress)
    return added.judged(recipients)


def in_words(found: Traced) -> str:
    """Who is named with which p-value, or `no evidence`, and what this rests on."""
    lines = [
        f"{accused.recipient} {accused.version}: p {probability(accused.log10_p)} (z {fixed(accused.z, 1)})"
        for accused in found.named
    ]
    copies = "copy" if found.candidates == 1 else "copies"
    share = percent(found.weights / found.weights_total)
    return "\n".join(
        [
            *(lines or ["no evidence"]),
            f"asked about {count(found.candidates)} {copies}; p is at least the chance that any of them looks like "
            f"this if none has a part in these weights; recipients are named below {figure(NAMED_BELOW)}",
            f"{count(found.weights)} output weights of the original were found ({share}), in {count(found.layers)} of "
            f"{count(found.layers_total)} MLPs",
        ]
    )


def probability(log10_p: float) -> str:
    """A p-value in words, from its logarithm, because it may be too small for a float."""
    if log10_p < -300:
        return f"< 1e{int(log10_p) + 1}"
    return f"= {figure(10**log10_p)}"
