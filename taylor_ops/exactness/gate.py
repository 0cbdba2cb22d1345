"""The gate of the stage `validate`: every prompt equal, or no more numerical ties than the noise floor allows."""

from __future__ import annotations

import math

from taylor_ops.errors import GateRejected
from taylor_ops.exactness.record import Comparison, ExactnessRecord

_CHANCE = 0.01


def require_exact(record: ExactnessRecord) -> None:
    """The exactness gate: every prompt equal, or every divergence a tie and no more of them than the floor has.

    In 16 bits both runs diverge by rounding, on prompts that chance picks: there the bundle may have more ties than the
    floor by as much as chance explains (`chance_of_so_many`), but none where the floor has none. Raises `GateRejected`
    naming the data set, the prompt, the position and the margin.
    """
    for data_set in record.data_sets:
        bundle, floor = data_set.bundle, data_set.floor
        where = f"data set `{data_set.name}`: {bundle.prompts_equal} of {bundle.prompts} prompts equal"
        remedy = (
            "tighten `conversion.tolerance`, widen `conversion.range_margin`, or calibrate on text like these prompts"
        )
        if not math.isfinite(bundle.kl_max):
            raise GateRejected(f"{where}; the bundle computes values that are not finite", remedy)
        apart = next((divergence for divergence in bundle.divergences if not divergence.tie), None)
        if apart is not None:
            raise GateRejected(
                f"{where}; {apart.prompt} differs at new token {apart.position}, where the original leads by "
                f"{apart.margin:.2g} nats: no numerical tie (limit {record.tie_margin:.2g})",
                remedy,
            )
        if len(bundle.divergences) > len(floor.divergences):
            more = f"{where}; its {len(bundle.divergences)} ties are more than the {len(floor.divergences)} of the "
            chance = chance_of_so_many(bundle, floor)
            if record.dtype == "float32" or not floor.divergences:
                raise GateRejected(f"{more}original against itself", remedy)
            if chance < _CHANCE:
                raise GateRejected(f"{more}original against itself, by chance in {chance:.1g} of cases", remedy)


def chance_of_so_many(bundle: Comparison, floor: Comparison) -> float:
    """How likely the bundle has so many more divergences than the floor if both diverge equally often.

    One-sided exact test of McNemar (Psychometrika 12, 1947) over the prompts on which one of them diverges alone.
    """
    ours, floors = ({divergence.prompt for divergence in run.divergences} for run in (bundle, floor))
    alone, apart = len(ours - floors), len(ours ^ floors)
    return float(sum(math.comb(apart, more) for more in range(alone, apart + 1)) / 2**apart)
