"""What documents say of measurements: each figure is the one of the result that its comment names."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmarks.figures import (
    DOCUMENTS,
    RESULTS,
    WORDINGS,
    Figure,
    FigureError,
    documents,
    figures,
    main,
    rewritten,
    stale_results,
    wrong,
)
from benchmarks.marks import sections
from benchmarks.measurement import ENTRY, measurement
from taylor_ops.storage.files import read_json

COMMENT = "<!-- some.json: attacks/rank one/share, percent -->"
MEASURED_DOCUMENTS = ("threat-model.md", "hardening.md", "evidence.md", "exactness.md", "performance.md")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    result = {"attacks": {"rank one": {"share": 0.5, "seconds": [8.04, 12], "passed": True}}}
    fresh = measurement("publish", begun=math.inf) | {"date": "2026-01-02"}
    (tmp_path / "some.json").write_text(json.dumps(result | {ENTRY: fresh}), encoding="utf-8")
    return tmp_path


@pytest.fixture
def page(results: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one document, with a figure of the one result, which is fresh."""
    monkeypatch.setattr("benchmarks.figures.DOCUMENTS", results)
    monkeypatch.setattr("benchmarks.figures.RESULTS", results)
    path = results / "page.md"
    path.write_text(f"# Page\n\nIt gets {COMMENT}**50 %** back.\n\n## Other\n\nNothing.\n", encoding="utf-8")
    return path


def changed(results: Path, **entry: object) -> None:
    """Let the one result say something else of what it measured."""
    path = results / "some.json"
    result = read_json(path)
    result[ENTRY] |= entry
    path.write_text(json.dumps(result), encoding="utf-8")


def document(name: str) -> str:
    return (DOCUMENTS / name).read_text(encoding="utf-8")


# The documents


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_every_figure_of_a_document_is_that_of_its_result_and_says_its_age(path: Path) -> None:
    assert list(wrong(path.read_text("utf-8"), path.name, stale_results())) == []


def test_readme_and_performance_cite_no_stale_figure_without_a_mark() -> None:
    stale = stale_results()
    for path in (DOCUMENTS.parent / "README.md", DOCUMENTS / "performance.md"):
        found = list(sections(path.read_text("utf-8")))
        cited = set().union(*(section.cited for section in found))
        assert len(cited) >= 1
        for section in found:
            for file in section.cited & stale.keys():
                assert f"before {stale[file]}: " in section.mark
                assert f"`{file}`" in section.mark


@pytest.mark.parametrize("name", MEASURED_DOCUMENTS)
def test_a_document_that_rests_on_measurements_links_the_results_of_its_figures(name: str) -> None:
    text = document(name)
    found = list(figures(text, name))
    assert len(found) >= 8
    linked = re.findall(r"\]\(\.\./benchmarks/results/([\w-]+\.json)\)", text)
    assert {figure.file for figure in found} <= set(linked)
    assert all((RESULTS / file).is_file() for file in linked)
    # A comment that lost a bracket shows on the page: the path of a figure stands in comments alone.
    assert ".json: " not in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", MEASURED_DOCUMENTS)
def test_every_bold_number_has_a_comment(name: str) -> None:
    text = document(name)
    numbers = {match.start(1) for match in re.finditer(r"\*\*(-?[\d.,e-]+(?: %)?)\*\*", text)}
    assert numbers <= {figure.start for figure in figures(text, name)}


@pytest.mark.parametrize("name", MEASURED_DOCUMENTS)
def test_markdown_shows_every_figure_in_bold_and_no_comment(name: str) -> None:
    text = document(name)
    assert shown_in_bold(text).issuperset(figure.stated for figure in figures(text, name))
    assert [token for token in MarkdownIt("commonmark").parse(text) if token.type == "html_block"] == []


def shown_in_bold(text: str) -> set[str]:
    page = MarkdownIt("commonmark").enable("table").render(text)
    return set(re.findall(r"<strong>([^<]+)</strong>", page))


# The form


def test_a_figure_has_its_source_its_wording_and_its_place() -> None:
    text = f"One line.\nIt gets {COMMENT}**51 %** back."
    [figure] = figures(text, "page.md")
    assert figure == Figure(
        file="some.json",
        keys=("attacks", "rank one", "share"),
        wording="percent",
        stated="51 %",
        place="page.md:2",
        start=text.index("51 %"),
    )


@pytest.mark.parametrize(
    "figure",
    [
        f"{COMMENT}**51 %**",
        f"{COMMENT} **51 %**",
        f"{COMMENT}\n**51 %**",
        f"{COMMENT.replace(': ', ':{0}').format(chr(10))}**51 %**",
        f"{COMMENT.replace('rank one', 'rank{0}one').format(chr(10))}\n**51 %**",
        f"{COMMENT.replace(' -->', '{0}-->').format(chr(10))}**51 %**",
    ],
)
def test_a_figure_that_differs_is_found_and_rewritten_wherever_its_line_breaks(figure: str, results: Path) -> None:
    text = f"It gets {figure} back, and **51 %** of nothing."
    [found] = figures(text)
    assert (found.stated, found.measured(results)) == ("51 %", "50 %")
    assert rewritten(text, results=results) == text.replace("51 %", "50 %", 1)
    assert "51 %" in shown_in_bold(text)


def test_a_key_may_have_a_comma() -> None:
    [figure] = figures("It reads <!-- forward.json: stacks/Llama-3-8B, one layer/bytes, count -->**9** bytes.")
    assert (figure.keys, figure.wording) == (("stacks", "Llama-3-8B, one layer", "bytes"), "count")


def test_figures_in_cells_of_a_table_are_rewritten(results: Path) -> None:
    seconds = "<!-- some.json: attacks/rank one/seconds/{}, {} -->**{}**"
    row = "| {} | {} |\n"
    text = "| a | b |\n| --- | --- |\n" + row.format(seconds.format(0, "one decimal", 1), seconds.format(1, "count", 2))
    assert rewritten(text, results=results).endswith(
        row.format(seconds.format(0, "one decimal", "8.0"), seconds.format(1, "count", 12))
    )
    assert shown_in_bold(text) == {"1", "2"}


@pytest.mark.parametrize("comment", ["<!-- written by hand -->", "<!-- written by hand -->\n\n**Note.**", ""])
def test_other_comments_and_bold_words_are_no_figures(comment: str) -> None:
    assert list(figures(f"A text. {comment} **Bold**, **51 %**.")) == []


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("share", "part"),
        ("some.json", "other.json"),
        ("rank one/share", "rank one/seconds/2"),
        ("rank one/share", "rank one/seconds/first"),
        ("rank one/share", "rank one/share/more"),
        ("rank one/share", "rank one"),
        ("rank one/share", "rank one/passed"),
    ],
)
def test_a_comment_that_leads_to_no_figure_is_an_error(results: Path, wrong: str, right: str) -> None:
    text = f"A line.\nIt gets {COMMENT.replace(wrong, right)}**50 %**"
    with pytest.raises(FigureError, match=r"^page\.md:2: "):
        rewritten(text, "page.md", results)
    [figure] = figures(text, "page.md")
    with pytest.raises(FigureError, match=r"^page\.md:2: "):
        figure.measured(results)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"It gets {COMMENT} 50 %", "no bold figure follows"),
        (f"It gets {COMMENT}", "no bold figure follows"),
        (f"It gets {COMMENT} back **50 %**", "no bold figure follows"),
        (f"It gets {COMMENT.replace(', percent', ', per cent')}**50 %**", "unknown wording `per cent`"),
        (f"It gets {COMMENT.replace(', percent', '')}**50 %**", "names no figure"),
        (f"It gets {COMMENT.replace('json:', 'json')}**50 %**", "names no figure"),
        (f"It gets {COMMENT.replace('.json', '')}**50 %**", "names no figure"),
        (f"It gets {COMMENT.replace('some.json', '../some.json')}**50 %**", "names no figure"),
        (f"It gets {COMMENT.replace(' -->', '')}**50 %**", "not closed"),
        (f"It gets {COMMENT.replace(' -->', '')}**50 %**, {COMMENT}**50 %**", "not closed"),
        (f"It gets {COMMENT}\n\n**50 %**", "a blank line"),
        (f"{COMMENT}**50 %**", "a line begins with"),
        (f"It gets\n{COMMENT}**50 %**", "a line begins with"),
        (f"- {COMMENT}**50 %**", "a line begins with"),
        (f"1. {COMMENT}**50 %**", "a line begins with"),
    ],
)
def test_a_malformed_comment_is_an_error_and_not_passed_over(text: str, message: str) -> None:
    with pytest.raises(FigureError, match=rf"^page\.md:\d: .*{message}"):
        list(figures(text, "page.md"))


@pytest.mark.parametrize("text", [f"{COMMENT}**50 %**", f"It gets\n{COMMENT}**50 %**", f"- {COMMENT}**50 %**"])
def test_markdown_does_not_show_a_figure_in_bold_whose_comment_begins_a_line(text: str) -> None:
    assert shown_in_bold(text) == set()


@pytest.mark.parametrize(
    ("wording", "value", "words"),
    [
        ("percent to a tenth", 0.9851, "98.5 %"),
        ("percent to a tenth", 0.99996, "over 99.99 %"),
        ("percent to a tenth", 1, "100 %"),
        ("percent to a tenth", 0.0101, "1.0 %"),
        ("whole percent", -0.0749, "-7 %"),
        ("whole percent", 0.001, "0.1 %"),
        ("rounded count", 1017.4, "1,017"),
        ("megabytes", 1_455_407_104, "1,455"),
    ],
)
def test_wordings_round_and_no_share_reads_as_nothing_or_as_the_whole(wording: str, value: float, words: str) -> None:
    assert WORDINGS[wording](value) == words


# The command


def test_the_command_rewrites_documents_and_says_which(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "differs.md").write_text(f"It gets {COMMENT}**51 %**", encoding="utf-8")
    before = page.read_text("utf-8")
    main()
    assert capsys.readouterr().out == "differs.md\n"
    assert page.read_text("utf-8") == before
    assert (results / "differs.md").read_text(encoding="utf-8") == f"It gets {COMMENT}**50 %**"


def test_the_command_ends_with_the_place_of_a_mistake(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.figures.DOCUMENTS", results)
    (results / "page.md").write_text(f"It gets {COMMENT} 50 %", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^page\.md:1: no bold figure follows"):
        main()


MARK = "*Measured before 2026-01-02: `some.json`. What was measured has changed since.*"


def test_a_stale_result_is_listed_and_its_figures_without_a_mark_are_refused(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--check"])
    assert capsys.readouterr().out == ""
    changed(results, code="of other code")
    with pytest.raises(SystemExit, match=r"page\.md:1: `Page` cites stale figures of some\.json without a mark"):
        main(["--check"])
    assert capsys.readouterr().out == "stale: some.json, measured 2026-01-02: the code has changed\n"


def test_marks_are_written_where_a_figure_is_stale_and_go_when_it_is_measured_again(
    page: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = page.read_text("utf-8")
    fresh = read_json(results / "some.json")[ENTRY]
    changed(results, code=None)
    main()
    stale = page.read_text("utf-8")
    assert [line for line in stale.splitlines() if MARK in line] == [stale.splitlines()[2]]
    assert shown_in_bold(stale) == {"50 %"}
    main(["--check"])
    main()
    assert page.read_text("utf-8") == stale
    changed(results, **fresh)
    with pytest.raises(SystemExit, match=r"page\.md:1: `Page` is marked stale, and cites no stale result"):
        main(["--check"])
    main()
    assert page.read_text("utf-8") == before


def test_a_mark_of_another_day_is_refused_and_rewritten(page: Path, results: Path) -> None:
    changed(results, code=None, date="2025-12-24")
    main()
    changed(results, date="2026-01-02")
    with pytest.raises(SystemExit, match=r"page\.md:1: `Page` has another mark"):
        main(["--check"])
    main()
    assert MARK in page.read_text("utf-8")
    assert "2025" not in page.read_text("utf-8")


def test_a_figure_that_differs_is_refused_with_what_it_should_be(page: Path) -> None:
    page.write_text(page.read_text("utf-8").replace("50 %", "51 %"), encoding="utf-8")
    with pytest.raises(SystemExit, match=r"page\.md:3: 51 % in place of 50 %"):
        main(["--check"])


def test_a_comment_that_only_names_a_result_cites_it(page: Path, results: Path) -> None:
    page.write_text("A half of it.<!-- some.json -->\n\n## Other\n\nNothing.\n", encoding="utf-8")
    main(["--check"])
    changed(results, code=None)
    with pytest.raises(SystemExit, match="`the beginning` cites stale figures"):
        main(["--check"])
    main()
    assert page.read_text("utf-8").startswith(MARK)
    main(["--check"])


def test_a_comment_in_a_block_of_code_is_no_heading(page: Path, results: Path) -> None:
    page.write_text(f"# Page\n\n```sh\n# no heading\n```\n\nIt gets {COMMENT}**50 %**.\n", encoding="utf-8")
    changed(results, code=None)
    main()
    assert page.read_text("utf-8").splitlines()[2].startswith(MARK)


def test_a_result_that_does_not_say_what_it_measured_is_an_error(page: Path, results: Path) -> None:
    (results / "some.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^some\.json: it does not say what it measured"):
        main(["--check"])


def test_the_check_loads_no_torch() -> None:
    code = "import sys, benchmarks.figures as f; f.stale_results(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=DOCUMENTS.parent, check=False).returncode == 0
