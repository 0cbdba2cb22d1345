"""The picture at the top of the README: what its module draws, with every stage, inside its frame."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.overview import FOLDER, HEIGHT, STAGES, WIDTH, pictures

ROOT = Path(__file__).parents[2]
NAMES = sorted(pictures())


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_what_its_module_draws_and_the_readme_shows_it(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pictures()[name]
    shown = re.findall(r'(?:src|srcset)="(docs/plots/overview-\w+\.svg)"', (ROOT / "README.md").read_text("utf-8"))
    assert f"docs/plots/{name}" in shown
    assert [file for file in shown if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_names_every_stage_with_what_the_documents_say_it_refuses(name: str) -> None:
    parts = list(ElementTree.fromstring(pictures()[name]).iter("{http://www.w3.org/2000/svg}text"))
    assert all(0 < float(part.attrib["x"]) < WIDTH and 0 < float(part.attrib["y"]) < HEIGHT for part in parts)
    words = ["".join(part.itertext()) for part in parts]
    assert [word for word in words if word in STAGES] == list(STAGES)
    rows = re.findall(
        r"^\| (\w+) \| [^|]+ \| [^|]+ \|([^|]*)\|$", (ROOT / "docs" / "how-it-works.md").read_text("utf-8"), re.M
    )
    told = {stage: bool(refuses.strip()) for stage, refuses in rows if stage in STAGES}
    assert told == {stage: bool(refuses) for stage, refuses in STAGES.items()}
