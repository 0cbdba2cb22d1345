"""The record of the command `trace`: whose marks were found in a suspect, and what that rests on."""

from __future__ import annotations

from taylor_ops.storage.record import Record


class Accusation(Record):
    """A recipient whose mark was found.

    Attributes:
        recipient: Name of the recipient.
        version: Version of the recipient's copy.
        z: How strongly the suspect points to this copy, see `statistic`.
        log10_p: Logarithm of the p-value, corrected for the number of copies asked about.
    """

    recipient: str
    version: str
    z: float
    log10_p: float


class Traced(Record):
    """The result of a trace.

    Attributes:
        named: The recipients whose marks were found, surest first. Empty if there is no evidence.
        candidates: Number of copies asked about, by which p-values are corrected.
        nearest: Largest z of the recipients that are not named. None if all are named.
        weights: Number of output weights of the original that were found in the suspect.
        weights_total: Number of all output weights of the original.
        layers: Number of MLPs of the original that were found in the suspect.
        layers_total: Number of all MLPs of the original.
    """

    named: tuple[Accusation, ...]
    candidates: int
    nearest: float | None
    weights: int
    weights_total: int
    layers: int
    layers_total: int
