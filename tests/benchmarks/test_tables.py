"""The tables of results in the documents: each cell is what its result gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import architectures
from benchmarks.figures import DOCUMENTS, RESULTS, figures
from benchmarks.marks import sections
from taylor_ops.storage.files import read_json

ROOT = Path(__file__).parents[2]


def rows(path: Path) -> dict[str, str]:
    """The rows of all tables of a document, by their first cell."""
    lines = [line.strip("| ") for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    return {cell: rest for cell, _, rest in (line.partition(" | ") for line in lines)}


def test_every_architecture_has_its_measured_row() -> None:
    measured = read_json(RESULTS / "architectures.json")["architectures"]
    table = rows(DOCUMENTS / "architectures.md")
    for name, row in measured.items():
        cells = architectures._line(name, row).strip("| ").split(" | ")
        # How many neurons are converted is the same in both bases, and stands there once.
        assert (cells[1], table[f"`{name}`"].split(" | ")) == (cells[5], cells[1:5] + cells[6:])
    assert {cell.strip("`") for cell in table if cell.startswith("`")} == measured.keys()


@pytest.mark.parametrize(
    ("path", "heading", "count", "unmeasured"),
    [
        (ROOT / "README.md", "## What you get\n", 5, set()),
        (DOCUMENTS / "getting-started.md", "## What the demo release measured\n", 13, {"device"}),
    ],
)
def test_each_result_of_the_demo_release_comes_from_its_record(
    path: Path, heading: str, count: int, unmeasured: set[str]
) -> None:
    (section,) = (section for section in sections(path.read_text("utf-8")) if section.heading == heading)
    table = [line.strip("| ") for line in section.body.splitlines() if line.startswith("| ")][2:]
    assert len(table) == count
    for row in table:
        name, _, cell = row.partition(" | ")
        if name in unmeasured:
            continue
        assert {figure.file for figure in figures(f"{name}: {cell}")} == {"release.json"}, name
        # Beside figures stand names and limits only.
        rest = re.sub(r"<!--.*?-->\*\*[^*]+\*\*", "", cell, flags=re.DOTALL)
        assert set(re.findall(r"[\d.]+\d|\d", rest)) <= {"95", "1", "0.1", "8"}, name


def test_the_least_config_of_the_readme_is_that_of_the_reference() -> None:
    def first_config(path: Path) -> object:
        return yaml.safe_load(path.read_text("utf-8").split("```yaml\n")[1].split("```")[0])

    assert first_config(ROOT / "README.md") == first_config(DOCUMENTS / "release-config.md")
