"""Inspect a converted model tensor by tensor: it holds what source and plan give, bit by bit, and nothing withheld."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from taylor_ops.conversion.terms import Subject, converted_tensors
from taylor_ops.errors import GateRejected
from taylor_ops.model.checkpoint import Checkpoint
from taylor_ops.model.row_blocks import ByRows
from taylor_ops.series.plan import Plan

_REMEDY = "the converted model was changed or is damaged: remove its folder below `stages` and run again"


def require_as_planned(subject: Subject, plan: Plan, converted: Path) -> None:
    """The integrity and leak gate of a converted model.

    Every tensor is recomputed from source, ranges and plan and must be equal bit by bit, and there must be no other
    tensor: withheld output weights can neither stand in place of their terms nor beside them. Raises
    `GateRejected` naming the tensor.
    """
    stored, expansions = Checkpoint(converted), subject.expansions()
    expected: set[str] = set()
    for name, tensor in converted_tensors(subject.original, expansions, plan, subject.conversion.dtype):
        expected.add(name)
        if name not in stored:
            raise GateRejected(f"{converted}: tensor {name} is missing", _REMEDY)
        there = stored.tensor(name)
        if not _same(there, tensor):
            raise GateRejected(f"{converted}: tensor {name} is not what source and plan give", _REMEDY)
    listed = {name: file for file, name in stored.stored()}
    for file, name in stored.stored():
        if name not in expected or listed[name] != file:
            raise GateRejected(
                f"{converted}: tensor {name} does not belong to a protected model; {file} may hold withheld weights",
                _REMEDY,
            )


def _same(there: Tensor, planned: Tensor | ByRows) -> bool:
    if isinstance(planned, ByRows):
        return planned.equals(there)
    return there.dtype == planned.dtype and torch.equal(there, planned)
