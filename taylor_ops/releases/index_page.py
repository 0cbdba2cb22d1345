"""The page of all releases: `index.html` of the artifacts folder, one self-contained file with links to the reports.

Equal folders give equal bytes, wherever they lie: the page has no date of its own, and every link is relative.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.masking import printable
from taylor_ops.presentation.drawing import in_style, svg_element
from taylor_ops.presentation.templates import environment
from taylor_ops.presentation.version_plots import PlottedVersion, prompts_equal, sizes, slowdowns
from taylor_ops.presentation.wording import count, figure, fixed, percent
from taylor_ops.releases.gates import Gate, facts, gates
from taylor_ops.releases.index import Run, release_folders, runs_of
from taylor_ops.releases.record import ReleaseRecord
from taylor_ops.releases.report import Plot
from taylor_ops.storage.artifacts import ReleaseFolder, VersionFolder
from taylor_ops.storage.files import kind_of, size, write_text

INDEX = "index.html"
"""The page, below the artifacts folder."""

_OUR_FILES = (INDEX, "README.md")


@dataclass(frozen=True)
class Link:
    """A link to something below the artifacts folder.

    Attributes:
        words: What a reader clicks on.
        path: The path below the artifacts folder.
    """

    words: str
    path: Path

    @property
    def address(self) -> str:
        """The address, relative to the page. No name is taken for a scheme, a query or a fragment."""
        return quote(os.fsencode(self.path.as_posix()))


@dataclass(frozen=True)
class FinishedVersion:
    """A version whose record is whole.

    Attributes:
        version: The version.
        when: When it was published, or left for review, in words.
        published_at: The same as a time in UTC. None if nobody noted it.
        report: The link to its report. None if there is no report.
        files: Links to its record and its bundle.
        figures: The figures of its line, by the heading of their column.
        facts: Name and value of each fact.
        gates: Its gates.
        plotted: What the plots show of it.
    """

    version: str
    when: str
    published_at: datetime | None
    report: Link | None
    files: tuple[Link, ...]
    figures: dict[str, str]
    facts: tuple[tuple[str, str], ...]
    gates: tuple[Gate, ...]
    plotted: PlottedVersion


@dataclass(frozen=True)
class ShownRelease:
    """All finished versions of one release, the newest first, and the plots across them if there are several."""

    name: str
    anchor: str
    versions: tuple[FinishedVersion, ...]
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class NotShown:
    """Something in the artifacts folder that is no finished release, and why."""

    place: str
    cause: str


@dataclass(frozen=True)
class IndexPage:
    """What was written: the page, what it shows, and what in the folder is no finished release."""

    path: Path
    releases: tuple[ShownRelease, ...]
    not_shown: tuple[NotShown, ...]

    @property
    def versions(self) -> int:
        """How many finished versions the page shows."""
        return sum(len(release.versions) for release in self.releases)


def write_index(artifacts: Path) -> IndexPage:
    """Write the page of everything that was released into `artifacts`. The page appears whole.

    Raises:
        BadInput: If there is no such folder, or if something that is not a file has the name of the page.
        WorkFailed: If something that the page links to is gone meanwhile, or if the page cannot be written.
    """
    path = artifacts / INDEX
    if not artifacts.is_dir():
        raise BadInput(
            f"there is no folder {artifacts}",
            "name the artifacts folder with --artifacts; `taylor-release run` makes it with the first release",
        )
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} is {kind_of(path)}, not a file", "move it elsewhere, then make the index again")
    page = _collected(artifacts)
    text = _rendered(page)
    _require_links(artifacts, page)
    write_text(path, text)
    return page


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural if need be."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


# What is in the folder


def _collected(artifacts: Path) -> IndexPage:
    releases: list[ShownRelease] = []
    not_shown = list(_strays(artifacts))
    for place in release_folders(artifacts):
        if place.name.startswith("."):
            continue
        versions: list[FinishedVersion] = []
        try:
            found = runs_of(place)
            not_shown += _strays_of(place, found)
        except OSError as error:
            not_shown.append(NotShown(_shown(place.name), f"cannot be read: {error.strerror or error}"))
            continue
        for run in found:
            try:
                versions.append(_finished(artifacts, run))
            except BadInput as error:
                not_shown.append(NotShown(_shown(f"{run.name}/{run.version}"), _shown(error.cause)))
        if versions:
            releases.append(_release(place.name, versions))
    in_order = tuple(sorted(not_shown, key=lambda one: (one.place, one.cause)))
    return IndexPage(path=artifacts / INDEX, releases=tuple(releases), not_shown=in_order)


def _strays(artifacts: Path) -> Iterator[NotShown]:
    """What lies beside the folders of the releases. Names with a dot are locks, and files that are being written."""
    for path in artifacts.iterdir():
        if not path.is_dir() and path.name not in _OUR_FILES and not path.name.startswith("."):
            yield NotShown(_shown(path.name), f"is {kind_of(path)}, and no release")


def _strays_of(place: ReleaseFolder, found: Sequence[Run]) -> Iterator[NotShown]:
    """What in the folder of a release is neither a version nor its stages; the folder itself if it has neither."""
    if not found and not place.stages.is_dir():
        yield NotShown(_shown(place.name), "holds no release")
        return
    if not found:
        yield NotShown(_shown(place.name), "has no version yet, only what stages left: run it again to finish it")
    known = {run.folder for run in found} | ({place.stages} if place.stages.is_dir() else set())
    for path in place.path.iterdir():
        if path not in known and not path.name.startswith("."):
            reason = "holds no version: the name of a version begins with a digit"
            yield NotShown(
                _shown(f"{place.name}/{path.name}"),
                reason if path.is_dir() else f"is {kind_of(path)}, and no version",
            )


def _shown(name: str) -> str:
    """The name as text that can be written and that obeys nobody. A name of a file need not be text."""
    return printable(name.encode("utf-8", "backslashreplace").decode("utf-8"))


# What is shown of a version


def _finished(artifacts: Path, run: Run) -> FinishedVersion:
    """What the page shows of a run. Raises `BadInput` if it was not finished, or if its record is not to be trusted."""
    record = run.record()
    if (record.name, record.version) != (run.name, run.version):
        raise BadInput(
            f"its record is that of {record.name} {record.version}",
            f"move {run.folder} to where this release belongs",
        )
    try:
        return _version(artifacts, run, record)
    except (ArithmeticError, LookupError, ValueError) as error:
        # Every value has its type. That they fit together is not looked at when a record is read.
        raise BadInput(
            f"its record holds impossible figures: {type(error).__name__}: {error}",
            f"restore {run.folder} from a copy, or run the release again: finished stages are reused",
        ) from error


def _version(artifacts: Path, run: Run, record: ReleaseRecord) -> FinishedVersion:
    slowdown, bundle = record.slowdown, record.bundle
    known = dict(facts(record))
    place = VersionFolder(run.folder)
    compared = [(data_set.bundle, data_set.floor) for data_set in record.exactness.values()]
    prompts = sum(ours.prompts for ours, _ in compared)
    equal = sum(ours.prompts_equal for ours, _ in compared)
    floor = sum(theirs.prompts_equal for _, theirs in compared)
    recovered = [attack.recovered_1pct for attack in record.audit.values()]
    files = {"report": place.report, place.record.name: place.record, "bundle": place.bundle}
    links = {words: path.relative_to(artifacts) for words, path in files.items() if path.exists()}
    return FinishedVersion(
        version=run.version,
        when=known["when"],
        published_at=_in_utc(record.published_at),
        report=Link(run.version, links.pop("report")) if "report" in links else None,
        files=tuple(Link(words, path) for words, path in links.items()),
        figures={
            "Slowdown": f"{fixed(slowdown.achieved, 2)} (target {figure(slowdown.target, 3)})",
            "Prompts equal": f"{count(equal)} of {count(prompts)}",
            "Noise floor": f"{count(floor)} of {count(prompts)}",
            "Recovered to 1 %": percent(max(recovered)) if recovered else "no attack run",
            "Protected": percent(record.coverage.neurons_protected / record.coverage.neurons_total),
            "Bundle": f"{size(bundle.bytes)}, {fixed(bundle.bytes / bundle.original_bytes, 1)} times the original",
        },
        facts=tuple((name, value) for name, value in known.items() if name != "when"),
        gates=gates(record),
        plotted=PlottedVersion(
            version=run.version,
            slowdown=slowdown.achieved,
            ci95=slowdown.ci95,
            target=slowdown.target,
            tolerance=slowdown.tolerance,
            equal=equal / prompts if prompts else math.nan,
            floor=floor / prompts if prompts else math.nan,
            bundle=float(bundle.bytes),
            original=float(bundle.original_bytes),
        ),
    )


def _in_utc(time: datetime | None) -> datetime | None:
    return time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time


def _release(name: str, versions: Sequence[FinishedVersion]) -> ShownRelease:
    """One release, of which `versions` are given from the oldest to the newest."""
    return ShownRelease(
        name=_shown(name),
        # Without spaces, as an id has to be, and different for different names.
        anchor=quote(os.fsencode(name), safe=""),
        versions=tuple(reversed(versions)),
        plots=_plots([version.plotted for version in versions]) if len(versions) > 1 else (),
    )


def _plots(versions: Sequence[PlottedVersion]) -> tuple[Plot, ...]:
    with in_style():
        return (
            Plot(
                title="Slowdown",
                caption="Measured, with the interval in which 95 % of loadings lie. Band: target and tolerance.",
                svg=svg_element(slowdowns(versions)),
            ),
            Plot(
                title="Exactness",
                caption="Held-out prompts with the same tokens to the end: from the bundle, and from the original "
                "itself in another execution.",
                svg=svg_element(prompts_equal(versions)),
            ),
            Plot(
                title="Size",
                caption="The bundle, and all tensors of the original.",
                svg=svg_element(sizes(versions)),
            ),
        )


# The page


def _rendered(page: IndexPage) -> str:
    dated = [
        (version.published_at, release.name, version)
        for release in page.releases
        for version in release.versions
        if version.published_at is not None
    ]
    templates = environment(autoescape=True)
    templates.filters["counted"] = counted
    text = templates.get_template("index.html.j2").render(
        page=page, last=max(dated, key=lambda one: one[:2]) if dated else None
    )
    return printable(text)


def _require_links(artifacts: Path, page: IndexPage) -> None:
    """Raise `WorkFailed` if a link of the page leads nowhere, because something was removed meanwhile."""
    for release in page.releases:
        for version in release.versions:
            for link in (*([version.report] if version.report else []), *version.files):
                if not (artifacts / link.path).exists():
                    raise WorkFailed(
                        f"{artifacts / link.path} was removed while the index was made; the old index stays",
                        "make the index again",
                    )
