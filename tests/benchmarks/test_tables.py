"""The tables of results in the documents: each cell is what its result gives."""

from __future__ import annotations

from pathlib import Path

import yaml

from benchmarks import architectures
from benchmarks.figures import DOCUMENTS, RESULTS
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


def test_the_results_of_the_demo_release_are_those_of_its_record() -> None:
    result = read_json(RESULTS / "release.json")
    record = result["release"]
    slowdown, attack, (perplexity,) = record["slowdown"], record["audit"]["rank_one"], record["perplexity"]
    own, gsm8k, coverage = record["exactness"]["project"], result["gsm8k"], record["coverage"]
    interval = "{:.2f} to {:.2f}".format(*slowdown["ci95"])
    size, original = (f"{record['bundle'][key] / 1e9:.2f} GB" for key in ("bytes", "original_bytes"))
    equal = {
        name: [run["prompts_equal"] for run in (data_set["bundle"], data_set["floor"])] + [data_set["floor"]["prompts"]]
        for name, data_set in (("own", own), ("gsm8k", gsm8k))
    }
    assert [equal["own"], equal["gsm8k"]] == [[72, 72, 72], [24, 24, 24]]
    kl = f"{own['bundle']['kl_mean']:.1e} (noise floor: {own['floor']['kl_mean']:.1e})"
    timed = f"{slowdown['achieved']:.2f}, 95 % interval {interval} (target {slowdown['target']:.2f})"

    readme, whole = rows(ROOT / "README.md"), rows(DOCUMENTS / "getting-started.md")
    for table in (readme, whole):
        assert (table["slowdown"], table["KL to the original, mean per token"]) == (timed, kl)
    assert readme["held-out prompts with the same 64 tokens"].startswith("72 of 72, and 24 of 24 of GSM8K")
    assert readme["size of the bundle"] == f"{size} (tensors of the original: {original})"
    seconds = f"{attack['seconds']:.0f} seconds on two CPU cores"
    share = f"{100 * attack['recovered_01pct']:.2f}%"
    assert readme["output weights that the rank-one attack recovers to within 0.1 %"] == f"{share} in {seconds}"

    assert whole["neurons protected"] == f"{coverage['neurons_protected']:,} of {coverage['neurons_total']:,}"
    assert whole["mean order"] == f"{coverage['mean_order']:.1f}"
    assert whole["bundle"] == f"{size} (the original's tensors: {original})"
    assert whole["prompts equal, the project's own, 64 new tokens"] == "72 of 72 (noise floor: 72)"
    assert whole["prompts equal, GSM8K, 64 new tokens"] == "24 of 24 (noise floor: 24)"
    assert whole["perplexity on running text"] == f"{perplexity['bundle']:.4f} (original: {perplexity['original']:.4f})"
    told = whole["protected weights that the rank-one attack recovered"]
    assert told.startswith(f"{100 * attack['recovered_1pct']:.2f}% to within 1 %, {share} to within 0.1 %")
    assert told.endswith(f"{attack['cosine_median']:.7f}; {seconds}")
    cold, unchanged = (f"{result['seconds'][run]:.0f}" for run in ("cold", "unchanged"))
    assert whole["`make release`, seconds"] == f"{cold}; again, with nothing changed: {unchanged}"
    assert whole["peak memory"] == f"{result['peak_rss_bytes'] / 1e9:.2f} GB"


def test_the_least_config_of_the_readme_is_that_of_the_reference() -> None:
    def first_config(path: Path) -> object:
        return yaml.safe_load(path.read_text("utf-8").split("```yaml\n")[1].split("```")[0])

    assert first_config(ROOT / "README.md") == first_config(DOCUMENTS / "release-config.md")
