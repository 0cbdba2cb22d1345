"""What documents say of measurements: each figure is the one in the linked result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.figures import DOCUMENTS, RESULTS, figures, rewritten

LINK = "([`some.json: attacks/rank one/share, percent`](../benchmarks/results/some.json))"
BOUND = ("threat-model.md", "hardening.md", "evidence.md")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "some.json").write_text(json.dumps({"attacks": {"rank one": {"share": 0.5}}}), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("name", [path.name for path in sorted(DOCUMENTS.glob("*.md"))])
def test_every_figure_of_a_document_is_that_of_its_result(name: str) -> None:
    text = (DOCUMENTS / name).read_text(encoding="utf-8")
    assert [figure.said for figure in figures(text)] == [figure.found for figure in figures(text)]


@pytest.mark.parametrize("name", BOUND)
def test_documents_that_rest_on_measurements_link_every_figure(name: str) -> None:
    text = (DOCUMENTS / name).read_text(encoding="utf-8")
    assert len(list(figures(text))) >= 8
    # Every link to a result belongs to a figure, and every bold number has a link.
    assert len(re.findall(r"\.json: ", text)) == len(list(figures(text)))
    assert not re.findall(r"\*\*[\d.,]+(?: %)?\*\*(?!\s+\(\[`)", text)
    linked = set(re.findall(r"\.\./benchmarks/results/([\w-]+\.json)", text))
    assert all((RESULTS / file).is_file() for file in linked)


def test_a_figure_that_differs_from_its_result_is_seen_and_written_anew(results: Path) -> None:
    [figure] = figures(f"It gets **51 %**\n{LINK} back.", results)
    assert (figure.said, figure.found) == ("51 %", "50 %")
    assert rewritten(f"It gets **51 %** {LINK} back.", results) == f"It gets **50 %** {LINK} back."


def test_a_link_that_leads_nowhere_is_an_error(results: Path) -> None:
    with pytest.raises(KeyError):
        list(figures(f"**50 %** {LINK.replace('share', 'part')}", results))
    with pytest.raises(OSError, match="other"):
        list(figures(f"**50 %** {LINK.replace('some.json', 'other.json')}", results))
