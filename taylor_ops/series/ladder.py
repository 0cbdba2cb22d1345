"""The plans to choose from, from the cheapest to the dearest, and the fits of all layers behind them."""

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
_CLEAR_STEP = 0.005


class _Candidate(NamedTuple):
    """What decides the orders of one plan."""

    tolerance: float
    least_order: int
    clear_share: float = 0.0


class _Ahead(NamedTuple):
    """Which layer follows which, and the fits of layers whose turn has not come."""

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
        """Fit these layers once for all plans to come, which end their series at other orders; 2.6 kB a neuron."""
        self._kept = {path: self[path] for path in paths}

    @contextmanager
    def fitted_ahead(self, paths: Sequence[str]) -> Iterator[None]:
        """Within the block a thread fits each of these layers while the one before it in `paths` is at work.

        Torch should compute on one thread there: its setting is one of the whole process.
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
        """The plans to choose from, by rising number of columns; the first is the cheapest that was asked for.

        Neurons are left in clear, as far as `conversion.min_protected` lets, only below the cheapest plan without any.
        Raises `BadInput` when the basis cannot keep the tolerance in every layer.
        """
        candidates = self._candidates()
        columns, clear = [0] * len(candidates), [0] * len(candidates)
        sound = [True] * len(candidates)
        neurons = missed = 0
        first_missed = ""
        for path in self.paths:
            layer = self[path]
            for index, candidate in enumerate(candidates):
                orders = self._orders(layer, *candidate)
                columns[index] += columns_of(orders)
                clear[index] += int((orders == CLEAR).sum())
                sound[index] &= index == 0 or candidate.clear_share > 0 or self._stays_sound(layer, orders)
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
                f"within order {conversion.max_order} for {missed} of {neurons} neurons (first in {first_missed})",
                "loosen `conversion.tolerance` or narrow `conversion.range_margin`"
                + ("" if conversion.basis == "chebyshev" else ", or use `conversion.basis: chebyshev`"),
            )
        rungs: dict[int, Plan] = {}
        for candidate, total, unprotected, usable in zip(candidates, columns, clear, sound, strict=True):
            if usable and total not in rungs:
                rungs[total] = Plan(
                    basis=self._conversion.basis,
                    tolerance=candidate.tolerance,
                    least_order=candidate.least_order,
                    columns=total,
                    neurons=neurons,
                    clear_share=candidate.clear_share,
                    clear=unprotected,
                )
        return [rungs[total] for total in sorted(rungs)]

    def _stays_sound(self, layer: FittedLayer, orders: Tensor) -> bool:
        """Whether more terms of powers have not cost more by cancellation than they give; Chebyshev terms never do."""
        conversion = self._conversion
        if conversion.basis == "chebyshev":
            return True
        kept = conversion.order is not None or layer.keeps(conversion.tolerance, orders)
        return kept and not bool(layer.loses_digits(orders).any())

    def _why_missed(self, path: str, layer: FittedLayer, orders: Tensor) -> str:
        """The path of a layer, with what rounding takes of the tolerance where that is much of it."""
        if not counts_rounding(layer.dtype):
            return path
        rounding = float(layer.bound(orders).rounding)
        return path + (f", where rounding takes {rounding:.2g}" if rounding > self._conversion.tolerance / 2 else "")

    def _candidates(self) -> list[_Candidate]:
        """What the ladder tries: the cheapest plan that protects all, dearer ones, then ever more neurons in clear."""
        whole = self._protecting_all()
        steps = math.ceil(round((1 - self._conversion.min_protected) / _CLEAR_STEP, 6))
        shares = [step * _CLEAR_STEP for step in range(1, steps)] + [1 - self._conversion.min_protected] * (steps > 0)
        return whole + [whole[0]._replace(clear_share=share) for share in shares]

    def _protecting_all(self) -> list[_Candidate]:
        """Tolerances and least orders, cheapest first; a fixed order is one with no tolerance."""
        conversion, degree = self._conversion, self._activation.degree
        if degree is not None:
            if conversion.order not in (None, degree):
                raise BadInput(
                    f"`{self._activation.name}` is a polynomial of degree {degree} right of its kink, exact at that "
                    f"order: `conversion.order` {conversion.order} would lose it or add nothing",
                    "leave `conversion.order` out",
                )
            return [_Candidate(conversion.tolerance, degree)]
        if conversion.order is not None:
            return [_Candidate(math.inf, order) for order in range(conversion.order, conversion.max_order + 1)]
        steps = range(int(math.log10(conversion.tolerance / _TIGHTEST) * _RUNGS_PER_DECADE) + 1)
        tolerances = [conversion.tolerance * 10 ** (-step / _RUNGS_PER_DECADE) for step in steps]
        tighter = [_Candidate(tolerance, 1) for tolerance in tolerances]
        return tighter + [_Candidate(tolerances[-1], order) for order in range(2, conversion.max_order + 1)]

    def _orders(self, layer: FittedLayer, tolerance: float, least_order: int, clear_share: float = 0.0) -> Tensor:
        """Orders [F] of one layer, at most `max_order`, even where that does not keep the tolerance."""
        max_order = self._conversion.max_order
        if math.isinf(tolerance):
            orders = torch.full((len(layer.allowed),), least_order)
        else:
            orders = layer.orders(tolerance / self._conversion.tolerance, max_order).clamp(least_order, max_order)
        if clear_share:
            # One neuron at least stays protected, or the layer would be no Taylor MLP.
            unprotected = min(int(clear_share * len(orders)), len(orders) - 1)
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
