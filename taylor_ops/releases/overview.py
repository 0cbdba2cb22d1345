"""One line of the list of releases: a run in the artifacts folder, with its figures if it was finished."""

from __future__ import annotations

from typing import Literal

from taylor_ops.errors import BadInput
from taylor_ops.presentation.wording import fixed, percent
from taylor_ops.releases.gates import facts
from taylor_ops.releases.index import Run
from taylor_ops.storage.files import size
from taylor_ops.storage.record import Record


class Overview(Record):
    """What the list says of one run. Without a record of the release, nothing but name, version and problem is known.

    Attributes:
        name: Name of the release.
        version: Its version.
        published: Whether its bundle was published.
        when: When it was published, in UTC, in words.
        source: What was released.
        slowdown: The slowdown that was measured, to two decimals.
        withheld: Share of the neurons that are protected.
        bundle: Size of the bundle.
        approval: Who approved it, and why.
        problem: Why the rest is not known.
    """

    name: str
    version: str
    published: Literal["yes", "no", "in review"]
    when: str | None = None
    source: str | None = None
    slowdown: str | None = None
    withheld: str | None = None
    bundle: str | None = None
    approval: str | None = None
    problem: str | None = None


def overview(run: Run) -> Overview:
    """The line of a run."""
    try:
        record = run.record()
    except BadInput as error:
        published: Literal["yes", "no"] = "yes" if run.published else "no"
        return Overview(name=run.name, version=run.version, published=published, problem=error.cause)
    fact, coverage = dict(facts(record)), record.coverage
    return Overview(
        name=run.name,
        version=run.version,
        published="yes" if record.published.pull_request is None else "in review",
        when=fact["when"],
        source=record.source.origin,
        slowdown=fixed(record.slowdown.achieved, 2),
        withheld=percent(coverage.neurons_protected / coverage.neurons_total),
        bundle=size(record.bundle.bytes),
        approval=fact["approval"],
    )
