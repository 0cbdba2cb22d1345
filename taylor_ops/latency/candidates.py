"""The candidates of a calibration in memory, and how many of their layers fit there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from taylor_ops.config.latency import Latency
from taylor_ops.conversion.in_memory import convert_in_memory
from taylor_ops.errors import BadInput
from taylor_ops.latency.judging import Sample
from taylor_ops.latency.timing import Undisturbed, pairs_of, scaled
from taylor_ops.model.loading import load_original
from taylor_ops.model.original import Original
from taylor_ops.model.shape import ModelShape
from taylor_ops.series.ladder import Expansions
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import disk_errors_explained, leave_page_cache

_CANDIDATE = ".candidate-"


class Candidates:
    """An original in memory and, in turn, its bundles under different plans: the two models that are timed.

    Models are loaded once and series fitted once, for the first `layers` decoder layers. Each candidate cuts the series
    as its plan says. Number by number, its tensors are those that `convert` writes under this plan. On the CPU they lie
    in files in `scratch`, like the tensors of a loaded bundle, so that the measured bundle is the one that will be
    released. Both models come from the disk, as they do after a restart.

    Attributes:
        layers: Number of decoder layers in memory.
        device: Device that holds them.
        plan: Plan of the candidate, None before the first.
    """

    def __init__(
        self,
        source: Original,
        expansions: Expansions,
        dtype: str,
        device: torch.device,
        layers: int,
        seed: int,
        scratch: Path | None,
    ) -> None:
        all_layers = int(source.config.num_hidden_layers)
        self.layers, self._times, self._seed = layers, all_layers / layers, seed
        self._source = source if layers == all_layers else source.first_layers(layers)
        self._expansions, self._scratch = expansions, scratch or Path(tempfile.gettempdir())
        for leftover in scratch.glob(f"{_CANDIDATE}*") if scratch else ():
            shutil.rmtree(leftover, ignore_errors=True)
        self._disturbed = 0
        self._timed: Undisturbed | None = None
        self._dtype, self.device = dtype, device
        self.plan: Plan | None = None
        self._files: Path | None = None
        expansions.keep(mlp.path for mlp in self._source.mlps)
        self._load()

    def _load(self) -> None:
        """Load the original twice. One of the two becomes the candidate."""
        # Memory need not hold the models of two loadings.
        self._original: Any = None
        self._bundle: Any = None
        self._disturbed, self._timed = self.disturbed, None
        if self.device.type == "cpu":
            for file in self._source.checkpoint.files():
                leave_page_cache(file)
        self._original, self._bundle = (
            load_original(self._source.folder, self._dtype, self.device, self._source.config) for _ in range(2)
        )

    def again(self) -> None:
        """Load both models anew, with the candidate of the same plan."""
        self._load()
        self._make()

    @property
    def disturbed(self) -> int:
        """How many pairs were timed again so far because other programs had the processor."""
        return self._disturbed + (self._timed.disturbed if self._timed else 0)

    def take(self, plan: Plan) -> None:
        """Replace the previous candidate by the candidate of `plan`."""
        self.forget_files()
        self.plan = plan
        self._make()

    def forget_files(self) -> None:
        """Remove the candidate's files, without which it cannot be loaded `again`. It stays in memory."""
        if self._files is not None:
            shutil.rmtree(self._files)
            self._files = None

    def _make(self) -> None:
        assert self.plan is not None
        if self.device.type != "cpu":
            convert_in_memory(self._bundle, self._source, self._expansions, self.plan)
            return
        with disk_errors_explained(self._scratch):
            if self._files is None:
                self._files = Path(tempfile.mkdtemp(prefix=_CANDIDATE, dir=self._scratch))
            convert_in_memory(self._bundle, self._source, self._expansions, self.plan, mapped=self._files)

    def sample(self, settings: Latency) -> Sample:
        """A function that times pairs of original and candidate under `settings`, scaled to all layers."""
        sample = pairs_of(self._original, self._bundle, settings, self._seed)
        self._disturbed, self._timed = self.disturbed, sample
        return sample if self._times == 1 else scaled(sample, self._original, settings, self._times)


def bytes_side_by_side(source: ModelShape, columns: float, dtype: torch.dtype, layers: int) -> int:
    """Bytes of `layers` decoder layers of original and bundle, and of two copies of everything outside of the layers.

    Args:
        source: Shape of the original.
        columns: Number of stacked columns in all layers of the bundle.
        dtype: Data type of both models.
        layers: Number of decoder layers.
    """
    all_layers, inside = int(source.config.num_hidden_layers), source.layer_bytes(dtype)
    both = 2 * inside + dtype.itemsize * int(source.config.hidden_size) * int(columns)
    return 2 * (source.bytes(dtype) - inside) + -(-layers * both // all_layers)


def layers_that_fit(source: ModelShape, plan: Plan, dtype: torch.dtype, room: int) -> int:
    """How many decoder layers of original and bundle fit side by side into `room` bytes.

    These are all layers, or a multiple of the period. Raises `BadInput` if not even one period fits.
    """
    layers, period = int(source.config.num_hidden_layers), source.period
    for fit in (layers, *reversed(range(period, layers, period))):
        if bytes_side_by_side(source, plan.columns, dtype, fit) <= room:
            return fit
    least = "one decoder layer" if period == 1 else f"{period} decoder layers, which cannot be timed apart,"
    raise BadInput(
        f"{room / 1e9:.1f} GB of memory do not hold {least} of original and bundle and their embeddings "
        f"({bytes_side_by_side(source, plan.columns, dtype, period) / 1e9:.1f} GB): no latency can be measured",
        "end other programs, or calibrate where there is more memory",
    )
