"""The sections `conversion` and `execution` of a release config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section

Basis = Literal["chebyshev", "taylor"]


DtypeName = Literal["float32", "bfloat16", "float16"]


class Conversion(Section):
    """How the MLP output weights become the terms of series."""

    basis: Basis = "chebyshev"
    """`chebyshev` converges on every interval. `taylor` is the paper's form, with powers about the local embedding."""
    tolerance: float = Field(default=1e-3, ge=1e-9, le=1)
    """Largest a-priori bound on the error of each MLP's output, as a fraction of the median norm of that output over
    the calibration text. The bound covers truncation on the captured ranges and, in float32, rounding of the stored
    terms. In 16 bits, rounding has a bound of its own. Calibration may tighten the tolerance, but never loosens it."""
    order: int | None = Field(default=None, ge=1, le=64)
    """One order for all neurons, in place of an order for each neuron that follows from `tolerance`."""
    max_order: int = Field(default=128, ge=1, le=128, validate_default=True)
    """Highest order that a neuron may get. The few neurons that need more than 64 have wide ranges and matter most."""
    min_protected: float = Field(default=1.0, gt=0, le=1)
    """Least share of the neurons to protect. If protecting every neuron is slower than the target slowdown, a value
    below 1 leaves the neurons with the longest series unprotected, as few as the target requires. Record and card state
    how many these are."""
    range_margin: float = Field(default=0.3, ge=0, le=4)
    """How far each captured range is widened on both sides, as a share of the range."""
    dtype: DtypeName = "float32"
    """Data type of the released weights, and of the original with which the bundle is compared."""
    shard_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    """Largest size of one safetensors file, in bytes."""

    @field_validator("max_order")
    @classmethod
    def _room_for_the_order(cls, highest: int, info: ValidationInfo) -> int:
        if (info.data.get("order") or 0) > highest:
            raise ValueError(f"must be at least `order`, which is {info.data['order']}")
        return highest


class Execution(Section):
    """Who converts the parts of a model. Neither the runner nor the number of workers changes a byte of the bundle."""

    runner: Literal["sequential", "threads", "processes", "dask", "ray"] = "sequential"
    """`sequential` converts one part after another in this process. The others are Prefect task runners. `dask` and
    `ray` need the extra of their name, as in `pip install taylor-release[dask]`."""
    workers: int = Field(default=2, ge=1)
    """Number of parts that are converted at once. Each takes the memory of one decoder layer as it is released. A
    thread computes with one core, and workers of other kinds share the cores of this machine. A cluster at `address`
    has its own number of workers."""
    address: str | None = Field(default=None, min_length=1, validate_default=True)
    """Scheduler of a running Dask or Ray cluster, such as `tcp://host:8786`. Without it, a cluster is started on this
    machine and ended with the conversion. All machines of a cluster need this software, processors of one kind, one
    shared file system for the artifacts and the source, and a Prefect server that they reach (`PREFECT_API_URL`)."""

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is not None and info.data.get("runner", "dask") not in ("dask", "ray"):
            raise ValueError("belongs to runner `dask` or `ray`")
        return address
