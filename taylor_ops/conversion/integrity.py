"""Inspect a converted model: bit by bit it holds what source and plan give, and no protected output weights."""

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

    Every tensor is recomputed from source, ranges and plan, and must be equal bit by bit. There must be no other
    tensor. Protected output weights can therefore stand neither in place of their terms nor beside them.

    Raises `GateRejected` with the first tensor that is missing, different or not expected.
    """
    stored, expansions = Checkpoint(converted), subject.expansions()
    expected: set[str] = set()
    for name, tensor in converted_tensors(subject.original, expansions, plan, subject.conversion.dtype):
        expected.add(name)
        if name not in stored:
            raise GateRejected(f"{converted}: tensor {name} is missing", _REMEDY)
        if not _same(stored.tensor(name), tensor):
            raise GateRejected(f"{converted}: tensor {name} is not what source and plan give", _REMEDY)
    listed = {name: file for file, name in stored.stored()}
    for file, name in stored.stored():
        if name not in expected or listed[name] != file:
            raise GateRejected(
                f"{converted}: tensor {name} does not belong to a protected model; {file} may hold protected output "
                "weights",
                _REMEDY,
            )


def _same(stored: Tensor, planned: Tensor | ByRows) -> bool:
    if isinstance(planned, ByRows):
        return planned.equals(stored)
    return stored.dtype == planned.dtype and torch.equal(stored, planned)
