"""The models of a calibration, kept in memory for the transfer of its plan."""

from __future__ import annotations

import torch

from taylor_ops.latency.candidates import Candidates
from taylor_ops.series.plan import Plan


class Bench:
    """Keeps the candidates of a calibration for the transfer of its plan on the same device.

    Only in the memory of the CPU: a GPU is given back between the stages of a release.
    """

    def __init__(self) -> None:
        self._candidates: Candidates | None = None

    def keep(self, candidates: Candidates) -> None:
        """Keep these candidates if they are on the CPU."""
        self._candidates = candidates if candidates.device.type == "cpu" else None

    def clear(self) -> None:
        """Keep nothing any longer."""
        self._candidates = None

    def handed_over(self, plan: Plan, device: torch.device, layers: int) -> Candidates | None:
        """The candidates that were kept, if they are of this plan, device and number of layers."""
        found, self._candidates = self._candidates, None
        same = found is not None and (found.plan, found.device, found.layers) == (plan, device, layers)
        return found if same else None
