"""The sections `conversion` and `execution` of a release config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from taylor_ops.config.section import Section

Basis = Literal["chebyshev", "taylor"]


DtypeName = Literal["float32", "bfloat16", "float16"]


class Conversion(Section):
    """How the MLP output weights become series parameters."""

    basis: Basis = "chebyshev"
    """`chebyshev` converges on every interval; `taylor` is the paper's form, powers about the local embedding."""
    tolerance: float = Field(default=1e-3, ge=1e-9, le=1)
    """Largest a-priori bound on the error of the output of each MLP, as a fraction of its median norm over the
    calibration text: truncation on the captured ranges and, in float32, rounding of the stored terms. In 16 bits
    rounding is bounded beside it. Calibration may tighten it, never loosen it."""
    order: int | None = Field(default=None, ge=1, le=64)
    """The same expansion order for every neuron, in place of one chosen per neuron from `tolerance`."""
    max_order: int = Field(default=128, ge=1, le=128, validate_default=True)
    """Highest order that any neuron may get. The few that need more than 64 are wide and matter most."""
    min_protected: float = Field(default=1.0, gt=0, le=1)
    """Least share of the neurons whose output weights are withheld. Below 1, a target slowdown under what protecting
    all of them costs is met by leaving those with the longest series in clear; record and card say how many."""
    range_margin: float = Field(default=0.3, ge=0, le=4)
    """How far each interval is widened on both sides, as a share of the captured range."""
    dtype: DtypeName = "float32"
    """Data type of the released weights, and of the original that they are compared with."""
    shard_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    """Largest size of one safetensors file."""

    @field_validator("max_order")
    @classmethod
    def _room_for_the_order(cls, highest: int, info: ValidationInfo) -> int:
        if (info.data.get("order") or 0) > highest:
            raise ValueError(f"must be at least `order`, which is {info.data['order']}")
        return highest


class Execution(Section):
    """Who converts the parts of a model. Whoever does, and however many there are, the bundle has the same bytes."""

    runner: Literal["sequential", "threads", "processes", "dask", "ray"] = "sequential"
    """`sequential` is this process, one part after another; the others are task runners of Prefect. `dask` and `ray`
    need the extra of their name, as in `pip install taylor-release[dask]`."""
    workers: int = Field(default=2, ge=1)
    """How many parts are converted at once, each in the memory of one decoder layer as it is released. Threads compute
    with one core each, other workers share the cores of this machine. A cluster at `address` has its own number."""
    address: str | None = Field(default=None, min_length=1, validate_default=True)
    """Scheduler of a running Dask or Ray cluster, such as `tcp://host:8786`; without it one is started on this machine
    and ended with the conversion. All machines need this software, processors of one kind, one shared file system for
    the artifacts and the source, and a Prefect server that they reach (`PREFECT_API_URL`)."""

    @field_validator("address")
    @classmethod
    def _of_a_cluster(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is not None and info.data.get("runner", "dask") not in ("dask", "ray"):
            raise ValueError("belongs to runner `dask` or `ray`")
        return address
