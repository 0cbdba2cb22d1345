"""The plans to choose from, from the cheapest to the dearest, and the fitted layers that they rest on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from taylor_ops.config.conversion import Conversion
from taylor_ops.errors import BadInput
from taylor_ops.series.activations import Activation
from taylor_ops.series.bound import Bound
from taylor_ops.series.fitted_layer import FittedLayer, counts_rounding, fit_layer
from taylor_ops.series.layout import CLEAR, Layout, columns_of, layout
from taylor_ops.series.plan import Plan
from taylor_ops.series.ranges import LayerRange, read_ranges

_RUNGS_PER_DECADE = 20
_TIGHTEST = 1e-10
# The order of a neuron that adds nothing. Bundles store terms of order 0 and 1 of every protected neuron.
_FEWEST = 1
_UNPROTECTED_STEP = 0.005


class _Candidate(NamedTuple):
    """The settings that decide the orders of one plan."""

    tolerance: float
    least_order: int
    unprotected_share: float = 0.0


class _Ahead(NamedTuple):
    """Fits of layers that run before their layer is asked for.

    Attributes:
        pool: The thread that fits.
        following: The path of the next layer, by the path of a layer.
        begun: The fits that have begun and that nobody has asked for yet, by path.
    """

    pool: ThreadPoolExecutor
    following: dict[str, str]
    begun: dict[str, Future[FittedLayer]]


class Expansions:
    """The expansions of all layers of one model, fitted on demand from its captured ranges."""

    def __init__(self, ranges_file: Path, activation: Activation, conversion: Conversion) -> None:
        self._ranges: Mapping[str, LayerRange] = read_ranges(ranges_file)
        self._activation = activation
        self._conversion = conversion
        self._last: tuple[str, FittedLayer] | None = None
        self._kept: dict[str, FittedLayer] = {}
        self._ahead: _Ahead | None = None

    @property
    def paths(self) -> list[str]:
        """Module path of every MLP, first layer first."""
        return list(self._ranges)

    def keep(self, paths: Iterable[str]) -> None:
        """Fit these layers once for all later plans, which differ only in their orders. Takes 2.6 kB a neuron."""
        self._kept = {path: self[path] for path in paths}

    @contextmanager
    def fitted_ahead(self, paths: Sequence[str]) -> Iterator[None]:
        """Within the block, a thread fits each of these layers while the caller works on the one before it in `paths`.

        Torch should compute on one thread within the block, because its number of threads holds for the whole process.
        """
        with ThreadPoolExecutor(1) as pool:
            self._ahead = _Ahead(pool, dict(pairwise(paths)), {})
            try:
                yield
            finally:
                self._ahead = None

    def __getitem__(self, path: str) -> FittedLayer:
        if path in self._kept:
            return self._kept[path]
        if self._last is None or self._last[0] != path:
            begun = self._ahead.begun.pop(path, None) if self._ahead else None
            self._last = path, self._fitted(path) if begun is None else begun.result()
            if self._ahead is not None and path in self._ahead.following:
                following = self._ahead.following[path]
                self._ahead.begun[following] = self._ahead.pool.submit(self._fitted, following)
        return self._last[1]

    def _fitted(self, path: str) -> FittedLayer:
        return fit_layer(self._activation, self._ranges[path], self._conversion)

    def ladder(self) -> list[Plan]:
        """The plans to choose from, by rising number of columns. The first is the cheapest that the config allows.

        Only plans below the cheapest one that protects every neuron have unprotected neurons, as far as
        `conversion.min_protected` allows. Raises `BadInput` if the basis cannot keep the tolerance in every layer.
        """
        candidates = self._candidates()
        columns, unprotected = [0] * len(candidates), [0] * len(candidates)
        sound = [True] * len(candidates)
        neurons = missed = 0
        first_missed = ""
        for path in self.paths:
            layer = self[path]
            for index, candidate in enumerate(candidates):
                orders = self._orders(layer, *candidate)
                columns[index] += columns_of(orders)
                unprotected[index] += int((orders == CLEAR).sum())
                sound[index] &= index == 0 or candidate.unprotected_share > 0 or self._stays_sound(layer, orders)
            orders = self._orders(layer, *candidates[0])
            too_far = (layer.error_at(orders) > layer.allowed) | layer.loses_digits(orders)
            if not layer.keeps(self._conversion.tolerance, orders):
                too_far = torch.ones_like(too_far)
            if math.isfinite(candidates[0].tolerance) and too_far.any():
                first_missed = first_missed or self._why_missed(path, layer, orders)
                missed += int(too_far.sum())
            neurons += len(orders)
        if missed:
            conversion = self._conversion
            raise BadInput(
                f"basis `{conversion.basis}` cannot keep tolerance {conversion.tolerance:g} in {conversion.dtype} "
                f"up to order {conversion.max_order} for {missed} of {neurons} neurons (first in {first_missed})",
                "loosen `conversion.tolerance` or narrow `conversion.range_margin`"
                + ("" if conversion.basis == "chebyshev" else ", or use `conversion.basis: chebyshev`"),
            )
        rungs: dict[int, Plan] = {}
        for candidate, total, clear, usable in zip(candidates, columns, unprotected, sound, strict=True):
            if usable and total not in rungs:
                rungs[total] = Plan(
                    basis=self._conversion.basis,
                    tolerance=candidate.tolerance,
                    least_order=candidate.least_order,
                    columns=total,
                    neurons=neurons,
                    clear_share=candidate.unprotected_share,
                    clear=clear,
                )
        return [rungs[total] for total in sorted(rungs)]

    def _stays_sound(self, layer: FittedLayer, orders: Tensor) -> bool:
        """Whether more powers have not cost more by cancellation than they gain. More Chebyshev terms never do."""
        conversion = self._conversion
        if conversion.basis == "chebyshev":
            return True
        within_tolerance = conversion.order is not None or layer.keeps(conversion.tolerance, orders)
        return within_tolerance and not bool(layer.loses_digits(orders).any())

    def _why_missed(self, path: str, layer: FittedLayer, orders: Tensor) -> str:
        """The path of a layer, with the part of the tolerance that rounding takes if it is more than half."""
        if not counts_rounding(layer.dtype):
            return path
        rounding = float(layer.bound(orders).rounding)
        return path + (f", where rounding takes {rounding:.2g}" if rounding > self._conversion.tolerance / 2 else "")

    def _candidates(self) -> list[_Candidate]:
        """Candidates for the ladder: the cheapest plan that protects all, dearer ones, then ever fewer protected."""
        protecting_all = self._protecting_all()
        steps = math.ceil(round((1 - self._conversion.min_protected) / _UNPROTECTED_STEP, 6))
        shares = [step * _UNPROTECTED_STEP for step in range(1, steps)]
        shares += [1 - self._conversion.min_protected] * (steps > 0)
        return protecting_all + [protecting_all[0]._replace(unprotected_share=share) for share in shares]

    def _protecting_all(self) -> list[_Candidate]:
        """Candidates that protect all, cheapest first. A fixed order has an infinite tolerance."""
        conversion, degree = self._conversion, self._activation.degree
        if degree is not None:
            if conversion.order not in (None, degree):
                raise BadInput(
                    f"`{self._activation.name}` is a polynomial of degree {degree} right of its kink, so that order "
                    f"{degree} is exact: `conversion.order` {conversion.order} would be inexact or add nothing",
                    "leave `conversion.order` out",
                )
            return [_Candidate(conversion.tolerance, degree)]
        if conversion.order is not None:
            return [_Candidate(math.inf, order) for order in range(conversion.order, conversion.max_order + 1)]
        steps = range(int(math.log10(conversion.tolerance / _TIGHTEST) * _RUNGS_PER_DECADE) + 1)
        tolerances = [conversion.tolerance * 10 ** (-step / _RUNGS_PER_DECADE) for step in steps]
        tighter = [_Candidate(tolerance, 1) for tolerance in tolerances]
        return tighter + [_Candidate(tolerances[-1], order) for order in range(2, conversion.max_order + 1)]

    def _orders(self, layer: FittedLayer, tolerance: float, least_order: int, unprotected_share: float = 0.0) -> Tensor:
        """Orders [F] of one layer, cut at `max_order` even if that does not keep the tolerance.

        A neuron whose output weights are all zero, pruned for instance, adds nothing whatever its series says.
        """
        max_order = self._conversion.max_order
        if math.isinf(tolerance):
            orders = torch.full((len(layer.allowed),), least_order)
        else:
            orders = layer.orders(tolerance / self._conversion.tolerance, max_order).clamp(least_order, max_order)
        orders[layer.weights.norms == 0] = _FEWEST
        if unprotected_share:
            # At least one neuron stays protected, or the layer would be no Taylor MLP.
            unprotected = min(int(unprotected_share * len(orders)), len(orders) - 1)
            orders[layer.longest_first(orders)[:unprotected]] = CLEAR
        return orders

    def layout(self, path: str, plan: Plan) -> Layout:
        """The stacked layout of one layer under `plan`."""
        layer = self[path]
        return layout(layer.expansion, self._orders_under(layer, plan))

    def bound(self, path: str, plan: Plan) -> Bound:
        """The a-priori bound of one layer under `plan`, relative to its typical output norm."""
        layer = self[path]
        return layer.bound(self._orders_under(layer, plan))

    def _orders_under(self, layer: FittedLayer, plan: Plan) -> Tensor:
        return self._orders(layer, plan.tolerance, plan.least_order, plan.clear_share)


def cheapest_whole(ladder: Sequence[Plan]) -> Plan:
    """The cheapest plan of a ladder that protects every neuron."""
    return next(plan for plan in ladder if plan.clear == 0)
