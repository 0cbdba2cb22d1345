"""The gate of the stage `validate`: every prompt equal, or no more numerical ties than the noise floor allows."""

from __future__ import annotations

import math

from taylor_ops.errors import GateRejected
from taylor_ops.exactness.record import Comparison, ExactnessRecord

_CHANCE = 0.01


def require_exact(record: ExactnessRecord) -> None:
    """The exactness gate: every prompt is equal, or every divergence is a tie and the noise floor has at least as many.

    In 16 bits both runs diverge by rounding, on prompts that chance picks. The bundle may then have more ties than the
    floor, by as many as chance explains (`chance_of_so_many`), but none if the floor has none.

    Raises:
        GateRejected: The gate is not met. The message names the data set, the prompt, the position and the margin.
    """
    for data_set in record.data_sets:
        bundle, floor = data_set.bundle, data_set.floor
        agreement = f"data set `{data_set.name}`: {bundle.prompts_equal} of {bundle.prompts} prompts equal"
        remedy = (
            "tighten `conversion.tolerance`, widen `conversion.range_margin`, or calibrate on text like these prompts"
        )
        if not math.isfinite(bundle.kl_max):
            raise GateRejected(f"{agreement}; the bundle computes values that are not finite", remedy)
        difference = next((divergence for divergence in bundle.divergences if not divergence.tie), None)
        if difference is not None:
            raise GateRejected(
                f"{agreement}; {difference.prompt} differs at new token {difference.position}, where the original "
                f"leads by {difference.margin:.2g} nats: no numerical tie (limit {record.tie_margin:.2g})",
                remedy,
            )
        if len(bundle.divergences) > len(floor.divergences):
            ties, of_floor = len(bundle.divergences), len(floor.divergences)
            excess = f"{agreement}; its {ties} ties are more than the {of_floor} of the original against itself"
            chance = chance_of_so_many(bundle, floor)
            if record.dtype == "float32" or not floor.divergences:
                raise GateRejected(f"{excess}", remedy)
            if chance < _CHANCE:
                raise GateRejected(f"{excess}, by chance in {chance:.1g} of cases", remedy)


def chance_of_so_many(bundle: Comparison, floor: Comparison) -> float:
    """How likely the bundle has so many more divergences than the floor, if both diverge equally often.

    One-sided exact test of McNemar (Psychometrika 12, 1947) over the prompts on which only one of them diverges.
    """
    ours, floors = ({divergence.prompt for divergence in run.divergences} for run in (bundle, floor))
    ours_alone, unshared = len(ours - floors), len(ours ^ floors)
    return float(sum(math.comb(unshared, count) for count in range(ours_alone, unshared + 1)) / 2**unshared)
