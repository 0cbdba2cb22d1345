"""What the page of all releases is: one file that loads nothing, shows all there is, and survives the rest."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from jinja2 import Environment
from typer.testing import CliRunner

from flows.commands.main import app
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.presentation.drawing import in_style
from taylor_ops.presentation.templates import environment
from taylor_ops.presentation.version_plots import PlottedVersion, prompts_equal, sizes, slowdowns
from taylor_ops.releases import index_page
from taylor_ops.releases.gates import gates
from taylor_ops.releases.index_page import write_index
from tests.support import release_example as example
from tests.support.html_page import Page, drawn

HOSTILE = "<script>alert('a')<b> \"&$\\frac{ |%20?#:"
WHEN = datetime(2026, 3, 1, 14, 5, tzinfo=UTC)


def released(artifacts: Path, version: str = "1.2.0", name: str = "tiny-taylor", **changes: Any) -> Path:
    """Write what a release of the example leaves, and return its folder."""
    record = example.record(config=example.config(version=version), **changes)
    folder = artifacts / name / version
    record.model_copy(update={"name": name}).write(folder / "release.json")
    (folder / "report.html").write_text("the report", encoding="utf-8")
    (folder / "bundle").mkdir()
    (artifacts / name / "stages").mkdir(exist_ok=True)
    return folder


def page_of(artifacts: Path) -> str:
    """The page, written anew."""
    return write_index(artifacts).path.read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The text of the cells of every row of every table."""
    return [Page(row.replace("</t", "\t</t")).words.strip().split("\t") for row in re.findall(r"<tr>.*?</tr>", text)]


def causes(artifacts: Path) -> dict[str, str]:
    """Why what is no finished release is none, by its place."""
    return {one.place: one.cause for one in write_index(artifacts).not_shown}


def two_models(artifacts: Path) -> Path:
    """Three versions of one release and one of another, beside what else belongs into an artifacts folder."""
    for version in ("1.10.0", "1.9.0", "1.10.0-rc.1"):
        released(artifacts, version, published_at=WHEN if version == "1.9.0" else None)
    released(artifacts, name="other-taylor", audit=example.audit(skipped=True))
    (artifacts / "hub" / "example-org").mkdir(parents=True)
    (artifacts / "README.md").write_text("What runs write.", encoding="utf-8")
    (artifacts / "tiny-taylor" / ".lock").touch()
    return artifacts


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with two models, and its page."""
    artifacts = two_models(tmp_path_factory.mktemp("usual"))
    return artifacts, page_of(artifacts)


def test_the_page_loads_nothing_and_links_only_to_what_is_there(usual: tuple[Path, str]) -> None:
    artifacts, text = usual
    page = Page(text)
    assert all(target.startswith("#") for target in page.loaded)
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", text))
    assert "@import" not in text
    assert not {"script", "link", "img", "iframe", "object"} & page.tags
    inside = {unquote(link[1:]) for link in page.links if link.startswith("#")}
    assert inside == {"other-taylor", "tiny-taylor"} == set(page.ids) & inside
    outside = [link for link in page.links if not link.startswith("#")]
    assert len(outside) == 4 * 3
    assert [link for link in outside if not (artifacts / unquote(link)).exists()] == []
    assert not re.search(r"[a-z]+:|^/|\.\.", " ".join(outside))
    assert str(artifacts) not in text


def test_versions_are_in_their_order_the_newest_first_and_each_has_its_figures_and_gates(
    usual: tuple[Path, str],
) -> None:
    _, text = usual
    lines = [row for row in rows(text) if row[0] in ("1.9.0", "1.10.0", "1.10.0-rc.1")]
    assert [line[0] for line in lines] == ["1.10.0", "1.10.0-rc.1", "1.9.0"]
    assert lines[-1][1:] == [
        "2026-03-01 14:05 UTC",
        "2.97 (target 3)",
        "47 of 48",
        "46 of 48",
        "over 99.99 %",
        "100 %",
        "1.45 GB, 2.7 times the original",
        "release.json, bundle",
    ]
    for gate in gates(example.record()):
        assert rows(text).count(list(gate.plain().values())) in (3, 4)
    assert [row for row in rows(text) if "skipped: no attack was run" in row] != []
    assert "4 versions of 2 releases." in Page(text).words
    assert "The last one is tiny-taylor 1.9.0 (2026-03-01 14:05 UTC)." in Page(text).words
    assert "no finished release" not in text


def test_there_are_plots_across_versions_if_there_are_several(usual: tuple[Path, str]) -> None:
    _, text = usual
    plots = drawn(text)
    assert len(plots) == text.count("<figure>") == 3
    for plot in plots:
        words = [part.text for part in plot.iter() if part.tag.endswith("text")]
        assert {"1.9.0", "1.10.0-rc.1", "1.10.0"} <= set(words)


def test_equal_folders_give_equal_bytes_wherever_they_lie(tmp_path: Path, usual: tuple[Path, str]) -> None:
    elsewhere = tmp_path / "some" / "where else"
    released(elsewhere, name="other-taylor", audit=example.audit(skipped=True))
    in_another_order = ("1.9.0", "1.10.0-rc.1", "1.10.0")
    for version in in_another_order:
        released(elsewhere, version, published_at=WHEN if version == "1.9.0" else None)
    assert page_of(elsewhere) == usual[1]
    # The page itself is no part of what it shows.
    assert page_of(elsewhere) == usual[1]


def test_hostile_names_are_only_text_and_their_links_lead_to_their_files(tmp_path: Path) -> None:
    released(
        tmp_path,
        name=HOSTILE,
        approval=Approval(by=HOSTILE, comment=f"\u202e{HOSTILE}\x1b[31m"),
        latency=example.latency().model_copy(
            update={"devices": (example.latency().devices[0].model_copy(update={"device": HOSTILE}),)}
        ),
        audit=example.audit(example.attack(attack=HOSTILE)),
    )
    released(tmp_path, name="javascript:alert(1)")
    (tmp_path / f"{HOSTILE}2").mkdir()
    text = page_of(tmp_path)
    page = Page(text)
    assert not {"script", "b"} & page.tags
    # Overview, heading, approval twice, device, attack, the folder that is no release.
    assert page.words.count(HOSTILE) == 7
    outside = [link for link in page.links if not link.startswith("#")]
    assert len(outside) == 6
    assert all((tmp_path / unquote(link)).exists() for link in outside)
    assert not [link for link in outside if ":" in link or "?" in link or "#" in link]
    assert {unquote(link[1:]) for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "\\u202e" in page.words
    assert "\u202e" not in text
    assert "\x1b" not in text


# What is no finished release


def cut_off(folder: Path) -> None:
    path = folder / "release.json"
    path.write_text(path.read_text("utf-8")[:-100], encoding="utf-8")


def not_text(folder: Path) -> None:
    (folder / "release.json").write_bytes(b"\xff\xfe{}")


def a_pipe(folder: Path) -> None:
    (folder / "release.json").unlink()
    os.mkfifo(folder / "release.json")


def a_folder(folder: Path) -> None:
    (folder / "release.json").unlink()
    (folder / "release.json").mkdir()


def of_other_software(folder: Path) -> None:
    (folder / "release.json").write_text('{"name": "tiny-taylor"}', encoding="utf-8")


def not_finished(folder: Path) -> None:
    (folder / "release.json").unlink()


def of_another_release(folder: Path) -> None:
    example.record().write(folder / "release.json")


def without_neurons(folder: Path) -> None:
    converted = example.converted().model_copy(update={"neurons_total": 0})
    example.record(config=example.config(version="1.3.0"), converted=converted).write(folder / "release.json")


def with_layers_too_few(folder: Path) -> None:
    converted = example.converted().model_copy(update={"layers": example.converted().layers[:3]})
    example.record(config=example.config(version="1.3.0"), converted=converted).write(folder / "release.json")


def larger_than_any_number(folder: Path) -> None:
    bundle = BundleRecord(folder="bundle", bytes=10**400, files={})
    example.record(config=example.config(version="1.3.0"), bundle=bundle).write(folder / "release.json")


@pytest.mark.parametrize(
    ("harm", "cause"),
    [
        (cut_off, "tiny-taylor/1.3.0/release.json is damaged: Invalid JSON"),
        (not_text, "tiny-taylor/1.3.0/release.json is damaged: 'utf-8' codec can't decode"),
        (a_pipe, "tiny-taylor/1.3.0/release.json is a pipe, not a file"),
        (a_folder, "tiny-taylor/1.3.0/release.json is a folder, not a file"),
        (of_other_software, "tiny-taylor/1.3.0/release.json was written by another version of taylor-release: version"),
        (not_finished, "tiny-taylor 1.3.0 has no release.json: it was not finished"),
        (of_another_release, "its record is that of tiny-taylor 1.2.0"),
        (without_neurons, "its record holds impossible figures: ZeroDivisionError"),
        (with_layers_too_few, "its record holds impossible figures: ValueError"),
        (larger_than_any_number, "its record holds impossible figures: OverflowError"),
    ],
)
def test_a_damaged_release_is_named_with_the_reason_and_hides_no_other(
    tmp_path: Path, harm: Callable[[Path], None], cause: str
) -> None:
    released(tmp_path)
    harm(released(tmp_path, "1.3.0"))
    written = write_index(tmp_path)
    (one,) = written.not_shown
    assert one.place == "tiny-taylor/1.3.0"
    assert one.cause.startswith(cause)
    text = written.path.read_text("utf-8")
    assert [one.place, one.cause] in rows(text)
    assert "1 version of 1 release." in Page(text).words
    assert "1 thing in this folder is no finished release." in Page(text).words
    assert str(tmp_path) not in text


def test_whatever_else_lies_in_the_folder_is_named(tmp_path: Path) -> None:
    released(tmp_path)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "somewhere").symlink_to(tmp_path / "nowhere")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "begun" / "stages").mkdir(parents=True)
    (tmp_path / "tiny-taylor" / "latest").mkdir()
    (tmp_path / "tiny-taylor" / "1.0.0").touch()
    (tmp_path / os.fsdecode(b"no \xff text")).mkdir()
    (tmp_path / ".index.html.partial").touch()
    (tmp_path / ".cache").mkdir()
    assert causes(tmp_path) == {
        "begun": "has no version yet, only what stages left: run it again to finish it",
        "no \\udcff text": "holds no release",
        "notes.txt": "is a file, and no release",
        "pictures": "holds no release",
        "somewhere": "is a link that leads nowhere, and no release",
        "tiny-taylor/1.0.0": "is a file, and no version",
        "tiny-taylor/latest": "holds no version: the name of a version begins with a digit",
    }


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released(tmp_path)
    (tmp_path / "closed" / "1.0.0").mkdir(parents=True)
    iterdir = Path.iterdir

    def closed(path: Path) -> Any:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert causes(tmp_path) == {"closed": "cannot be read: Permission denied"}


def test_a_release_without_its_report_is_shown_without_that_link(tmp_path: Path) -> None:
    (released(tmp_path) / "report.html").unlink()
    text = page_of(tmp_path)
    assert Page(text).links == ["tiny-taylor/1.2.0/release.json", "tiny-taylor/1.2.0/bundle"]
    assert "1.2.0, without report" in [row[0] for row in rows(text)]


# The page as a file


def test_an_empty_folder_gives_a_page_that_says_what_to_do(tmp_path: Path) -> None:
    words = " ".join(Page(page_of(tmp_path)).words.split())
    assert "Nothing was released here yet. taylor-release run CONFIG makes a release" in words
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_place_that_cannot_hold_the_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no folder .*nowhere"):
        write_index(tmp_path / "nowhere")
    (tmp_path / "index.html").mkdir()
    with pytest.raises(BadInput, match=r"index\.html is a folder, not a file"):
        write_index(tmp_path)


def test_the_old_page_stays_if_a_report_goes_away_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = released(tmp_path) / "report.html"
    (tmp_path / "index.html").write_text("the old page", encoding="utf-8")

    def removing(autoescape: bool) -> Environment:
        report.unlink()
        return environment(autoescape)

    monkeypatch.setattr(index_page, "environment", removing)
    with pytest.raises(WorkFailed, match=r"report\.html was removed while the index was made"):
        write_index(tmp_path)
    assert (tmp_path / "index.html").read_text("utf-8") == "the old page"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "tiny-taylor"]


def test_the_command_says_where_the_page_is_and_what_it_does_not_show(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["index", "--artifacts", str(tmp_path)])
    assert done.stdout.splitlines() == [
        f"{tmp_path}/index.html: 0 versions of 0 releases",
        "nothing was released here yet: `taylor-release run CONFIG` makes a release",
    ]
    released(tmp_path)
    (tmp_path / "\x1b[31mred").mkdir()
    done = CliRunner().invoke(app, ["index", "--artifacts", str(tmp_path)])
    assert done.stdout.splitlines() == [
        "no finished release: \\x1b[31mred: holds no release",
        f"{tmp_path}/index.html: 1 version of 1 release",
    ]


# The plots


def plotted(version: str = "1.0.0", **changes: Any) -> PlottedVersion:
    return PlottedVersion(
        version=version,
        slowdown=2.97,
        ci95=(2.9, 3.1),
        target=3.0,
        tolerance=0.1,
        equal=1.0,
        floor=0.5,
        bundle=1.45e9,
        original=5.4e8,
    )._replace(**changes)


def named(versions: list[PlottedVersion]) -> list[str]:
    """The versions that have their name below a plot. No two names overlap."""
    with in_style():
        canvas = slowdowns(versions)
        canvas.draw_without_rendering()
        labels = canvas.axes[0].get_xticklabels()
        places = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in pairwise(places))
    return [label.get_text() for label in labels]


def test_each_plot_shows_the_figures_of_each_version() -> None:
    versions = [plotted(), plotted("1.1.0", slowdown=2.5, equal=0.75, bundle=2.9e9)]
    (measured, *_) = slowdowns(versions).axes[0].get_lines()
    assert list(measured.get_ydata()) == [2.97, 2.5]
    floor, bundle = prompts_equal(versions).axes[0].get_lines()
    assert (list(floor.get_ydata()), list(bundle.get_ydata())) == ([50, 50], [100, 75])
    axes = sizes(versions).axes[0]
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([1.45, 2.9])
    assert (axes.get_ylabel(), axes.get_ylim()[0]) == ("size, GB", 0)


def test_small_models_have_their_sizes_in_megabytes() -> None:
    axes = sizes([plotted(bundle=3e6, original=1e6)] * 2).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [3, 3]
    assert axes.get_ylabel() == "size, MB"


def test_of_many_versions_only_so_many_are_named_that_their_names_fit_and_the_newest_always() -> None:
    few = ["1.0.0", "1.1.0", "1.2.0-rc.1", "1.2.0"]
    assert named([plotted(version) for version in few]) == few
    shown = named([plotted(f"10.{number}.0-rc.100") for number in range(50)])
    assert "10.49.0-rc.100" in shown
    assert len(shown) > 1
    assert named([plotted(f"1.{number}.0") for number in range(200)])[-1] == "1.199.0"
    assert named([plotted("1.0.0-" + "x" * 90)] * 3) == ["1.0.0-" + "x" * 17 + "…"] * 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_awkward_figures_leave_a_gap(value: float) -> None:
    awkward = plotted(
        slowdown=value, ci95=(value, value), target=value, equal=value, floor=value, bundle=value, original=value
    )
    for draw in (slowdowns, prompts_equal, sizes):
        for versions in ([awkward, awkward], [plotted(), awkward, plotted()]):
            canvas = draw(versions)
            canvas.draw_without_rendering()
            assert all(math.isfinite(end) for end in canvas.axes[0].get_ylim())
