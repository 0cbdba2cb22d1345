"""What a model card says: everything that was stated, as it was stated, and no more than figures bear out."""

from __future__ import annotations

import copy
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from jinja2 import UndefinedError
from packaging.requirements import Requirement

from taylor_ops.audit.record import Compiled
from taylor_ops.bundle import card as card_room
from taylor_ops.bundle.assemble import LOADS_WITH
from taylor_ops.bundle.card import render_card
from taylor_ops.config.card import Card
from taylor_ops.presentation.templates import environment
from taylor_ops.presentation.wording import figure, percent
from tests.support import release_example as example

Place = tuple[str | int, ...]


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """The template is compiled once for all cards of this file: that takes nine tenths of the time of a card."""
    shared = environment(autoescape=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "compile", functools.cache(shared.compile))
        patch.setattr(card_room, "environment", lambda autoescape: shared)
        yield


def card(statements: dict[str, Any] | None = None, **config: Any) -> str:
    return render_card(statements or example.statements(), example.config(**config))


def block(text: str, language: str) -> str:
    """The text of the first code block in `language`."""
    found = re.search(rf"^(`{{3,}}){language}\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[2]


# Metadata


def test_the_hub_reads_the_metadata() -> None:
    data = ModelCard(card()).data
    assert data.license == "apache-2.0"
    assert data.base_model == "owner/Tiny"
    assert data.base_model_relation == "quantized"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.language == ["en", "no"]
    assert data.tags == ["taylor-mlp", "custom_code", "demo"]


def test_metadata_that_yaml_could_misread_comes_back_as_given() -> None:
    awkward = Card(license="mit", language=("no", "yes"), tags=("on", "a: b", '"', "---", "1e3", "no: ["))
    data = ModelCard(card(card=awkward)).data
    assert data.license == "mit"
    assert data.language == ["no", "yes"]
    assert data.tags == ["taylor-mlp", "custom_code", "on", "a: b", '"', "---", "1e3", "no: ["]


def test_without_a_base_model_none_is_claimed() -> None:
    text = card(card=Card(license="mit"))
    data = ModelCard(text).data.to_dict()
    assert not {"base_model", "base_model_relation"} & data.keys()
    assert "| A `llama` language model in another form" in text


# Figures


def leaves(value: Any, path: Place = ()) -> Iterator[Place]:
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, (*path, key))
    else:
        yield path


def is_on_the_card(path: Place) -> bool:
    keys = [str(key) for key in path]
    not_shown = (
        keys[0] in ("format", "config")
        or "continuations" in keys
        # The table of layers is by ranges of them, weighted by neurons.
        or ("layers" in keys and keys[-1] in ("path", "neurons", "columns", "tokens", "tokens_inside", "inside"))
        # Samples and candidates are in the plots.
        or ("measured" in keys and ("trials" in keys or any(key.startswith("seconds") for key in keys)))
        # Of the floor, the number of divergences says enough.
        or ("floor" in keys and "divergences" in keys)
    )
    return not not_shown


def other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return 7 * value + 5
        case None:
            return 3
        case _:
            return f"{value}x"


def changed(statements: dict[str, Any], path: Place) -> dict[str, Any]:
    statements = copy.deepcopy(statements)
    place: Any = statements
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = other(place[path[-1]])
    return statements


@pytest.mark.parametrize(
    "path",
    [path for path in leaves(example.statements()) if is_on_the_card(path)],
    ids=lambda path: ".".join(map(str, path)),
)
def test_the_card_follows_every_statement_that_it_shows(path: Place) -> None:
    statements = example.statements()
    assert card(changed(statements, path)) != card(statements)


def audited() -> dict[str, Any]:
    """What a bundle states where all that is left of the slowdown was measured."""
    compiled = Compiled(alone=example.timed(1.4), both=example.timed(2.2))
    record = example.audit(example.attack(rebuilt=example.rebuilt()))
    return example.statements(audit=record.model_copy(update={"compiled": compiled}))


@pytest.mark.parametrize(
    "path",
    [path for path in leaves(audited()) if path[:2] == ("audit", "measured") and is_on_the_card(path)],
    ids=lambda path: ".".join(map(str, path)),
)
def test_the_card_follows_what_was_measured_of_what_is_left(path: Place) -> None:
    assert card(changed(audited(), path)) != card(audited())


def test_a_statement_that_is_missing_is_an_error_and_no_gap() -> None:
    statements = example.statements()
    del statements["slowdown"]["device"]
    with pytest.raises(UndefinedError):
        card(statements)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (1.0, "100 %"),
        (0.9999999, "over 99.99 %"),
        (0.99991, "99.99 %"),
        (0.5, "50 %"),
        (0.1, "10 %"),
        (0.00001, "under 0.01 %"),
        (0.0, "0 %"),
    ],
)
def test_only_the_whole_is_called_the_whole(share: float, said: str) -> None:
    assert percent(share) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0.0, "0"), (1.26e-5, "1.3e-5"), (1e-10, "1e-10"), (3.0, "3"), ("Infinity", "infinite"), ("NaN", "NaN")],
)
def test_figures_are_worded_whatever_they_are(number: float | str, said: str) -> None:
    assert figure(number) == said


# Exactness


def test_a_divergence_is_listed_with_its_place_and_margin() -> None:
    text = card()
    assert "On 47 of 48 held-out prompts" in text
    assert "| gsm8k | math-17 | 41 | 0.00037 | yes |" in text


def test_a_divergence_that_is_no_tie_stands_out() -> None:
    apart = example.comparison(23, 1e-3, (example.divergence(tie=False),))
    data_set = example.data_set("gsm8k", apart, example.comparison(24, 1e-9))
    text = card(example.statements(exactness=example.exactness(data_set)))
    assert "| gsm8k | math-17 | 41 | 0.83 | **no** |" in text
    assert "23 of 24" in text


def test_scores_on_tasks_stand_side_by_side_and_follow_what_was_measured() -> None:
    text = card(example.statements(tasks=(example.task(),)))
    assert "| arithmetic | acc | 119 of 120 | 0.375 ± 0.044 | 0.375 | 0.01 |" in text
    assert "| arithmetic | acc_norm | 119 of 120 | 0.4 | 0.4083 | 0.01 |" in text
    likelihoods = card(example.statements(tasks=(example.task(answers_equal=None, allowed=0.0),)))
    assert "| arithmetic | acc_norm | 120 likelihoods | 0.4 | 0.4083 | 0 |" in likelihoods
    assert "lm-eval" not in card()


def test_equality_is_claimed_when_every_prompt_is_equal() -> None:
    same = example.data_set("project", example.comparison(24, 0.0), example.comparison(24, 0.0))
    text = card(example.statements(exactness=example.exactness(same)))
    assert "On all 24 held-out prompts" in text
    assert "Where this bundle differs" not in text


def test_a_long_list_of_divergences_is_cut_and_says_so() -> None:
    many = tuple(example.divergence(prompt=f"prompt-{number}") for number in range(50))
    apart = example.comparison(50, 1e-8, many, prompts=100)
    data_set = example.data_set("gsm8k", apart, apart)
    text = card(example.statements(exactness=example.exactness(data_set)))
    assert "prompt-19 |" in text
    assert "prompt-20 |" not in text
    assert "gsm8k: 30 more are in `taylor_release.json`" in text


def test_no_table_of_exactness_is_wider_than_a_page_of_github() -> None:
    _, _, section = card().partition("## Exactness")
    headings = re.findall(r"^\| Data set .*\|$", section.partition("## Speed")[0], re.MULTILINE)
    assert len(headings) == 4
    assert max(heading.count("|") - 1 for heading in headings) <= 6


# The box at the top


def box(text: str) -> dict[str, str]:
    """The lines of the box by their names. It is the first thing below the title."""
    below = text.partition("\n# ")[2].partition("\n\n")[2]
    lines = below.partition("\n\n")[0].splitlines()
    del lines[1]
    return {name.strip(" *"): value.strip() for name, value in (line.strip("|").split("|", 1) for line in lines)}


def test_the_card_opens_with_a_box_of_five_lines() -> None:
    found = box(card())
    assert list(found) == ["What it is", "Same tokens", "Slower", "Protected", "Licence, contact"]
    assert found["What it is"].startswith("[owner/Tiny](https://huggingface.co/owner/Tiny) in another form")
    assert found["Same tokens"].startswith("On 47 of 48 held-out prompts, 64 new tokens each")
    assert found["Protected"].startswith(
        "The output weights of all 18,432 MLP neurons. An expert gets over 99.99 % of these weights back"
    )
    assert found["Licence, contact"] == "apache-2.0; no contact is given"


def test_the_box_states_the_slowdown_as_measured_and_never_the_target() -> None:
    statements = example.statements()
    statements["slowdown"] |= {"target": 1.7}
    statements["slowdown"]["measured"] |= {"slowdown": 1.38, "ci95": [1.35, 1.41]}
    assert box(card(statements))["Slower"].startswith(
        "1.38 times as long per token as the original, as measured on Example CPU 7, 2 threads; 95 % of loadings lie "
        "between 1.35 and 1.41"
    )
    assert box(card(untimed(example.statements())))["Slower"].startswith(
        "2.70 to 3.30 times as long per token as the original, as checked on Example CPU 7, 2 threads"
    )


def test_the_box_says_that_no_attack_was_tried() -> None:
    line = box(card(example.statements(audit=example.audit(skipped=True))))["Protected"]
    assert "**No attack was tried**: assume that an expert gets them back" in line


@pytest.mark.parametrize(
    ("contact", "line"),
    [
        ("mail <team@example.org>", "mit; mail <team@example.org>"),
        ("first\n\nsecond", "mit; [contact](#contact)"),
        ("a | b", "mit; [contact](#contact)"),
    ],
)
def test_a_contact_stands_in_the_box_or_as_it_is_given_at_the_end(contact: str, line: str) -> None:
    text = card(card=Card(license="mit", contact=contact))
    assert box(text)["Licence, contact"] == line
    assert text.endswith(f"## Contact\n\n{contact}\n") is ("contact](#" in line)


def test_a_licence_of_its_own_is_linked_in_the_box() -> None:
    own = Card(license="other", license_name="Tiny Licence", license_link="https://example.org/licence")
    assert box(card(card=own))["Licence, contact"].startswith("[Tiny Licence](https://example.org/licence); ")


def test_details_are_folded_and_every_fold_ends() -> None:
    for statements in (example.statements(), untimed(example.statements()), audited()):
        text = card(statements)
        assert text.count("<details>") == text.count("</details>") >= 5
        # Without an empty line, Markdown takes a table behind a summary for HTML.
        assert all(line.endswith("</summary>\n") for line in re.findall(r"<summary>.*\n(?=\n)", text))
        assert text.count("<summary>") == len(re.findall(r"<summary>.*</summary>\n\n", text))
        assert len(re.findall(r"\n\n</details>\n", text)) == text.count("</details>")


def test_one_thread_is_singular() -> None:
    statements = example.statements()
    statements["slowdown"]["device"] = "Example CPU 7, 1 threads"
    text = card(statements)
    assert "as measured on Example CPU 7, 1 thread;" in text
    assert "1 threads" not in text


def test_the_card_says_with_which_versions_a_bundle_loads_at_least() -> None:
    assert "It needs Python 3.11, `torch` 2.6 and `transformers` 5.20, or newer versions" in card()
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    least = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    for name in ("torch", "transformers"):
        assert f">={LOADS_WITH[name]}" in map(str, least[name])
    assert project["requires-python"].startswith(f">={LOADS_WITH['python']},")


# Speed


def test_the_card_says_that_another_loading_may_be_faster_or_slower() -> None:
    for statements in (example.statements(), untimed(example.statements())):
        words = " ".join(card(statements).split())
        assert "the slowdown that loadings have on average had to lie inside this band" in words
        assert "another loading may differ by a few percent" in words


def test_the_card_says_which_samples_are_in_the_manifest_and_which_are_not() -> None:
    words = " ".join(card().split())
    assert "All samples" not in words
    assert "The samples of the candidates that were not chosen are in the release record (`release.json`)" in words
    trials = example.statements()["slowdown"]["measured"]["trials"]
    assert not any(name.startswith("seconds") for trial in trials for name in trial)


# Audit


def test_a_skipped_audit_is_said_at_the_top_and_nothing_is_claimed_recovered() -> None:
    text = card(example.statements(audit=example.audit(skipped=True)))
    before_loading, _, _ = text.partition("## Loading")
    assert "**No attack was run against this release.**" in before_loading
    assert "Nothing was tried: the audit was skipped" in text
    assert "rank_one" not in text
    assert "Known attacks were run" not in text


def test_what_an_attack_recovered_is_said_with_its_consequence() -> None:
    text = card()
    assert "over 99.99 % of the protected" in text
    assert "in at most 600 seconds" in text
    assert "model as fast as the original" in text
    assert "does not keep a secret" in text
    assert "No attack was run" not in text


def test_an_attack_that_failed_is_no_proof_of_secrecy() -> None:
    weak = example.attack(recovered_1pct=0.04, recovered_01pct=0.001, cosine_median=0.1, seconds=99_999.0)
    text = card(example.statements(audit=example.audit(weak)))
    assert "got 4 % of the protected weights back" in text
    assert "not a limit" in text
    assert "gets the protected weights back" not in text
    assert "does not keep a secret" in text
    assert "longer than any bound stated here" in text


def test_the_best_of_several_attacks_decides() -> None:
    weak = example.attack(attack="other", recovered_1pct=0.04)
    text = card(example.statements(audit=example.audit(weak, example.attack())))
    assert "gets the protected weights back (over 99.99 % to within 1 %)" in text


# The same for everyone


def test_equal_evidence_gives_equal_bytes_whatever_was_measured_on_the_way() -> None:
    slower = example.latency(example.trial(307_200, 9.9, 3.21))
    again = example.statements(latency=slower, audit=example.audit(example.attack(seconds=15.0)))
    assert card(untimed(again)) == card(untimed(example.statements()))
    assert card(again) != card()


def untimed(statements: dict[str, Any]) -> dict[str, Any]:
    """What a bundle states whose config says `card.measured: false`."""
    for section in ("slowdown", "audit"):
        del statements[section]["measured"]
    return statements


def test_the_order_in_which_hashes_and_tools_come_does_not_matter() -> None:
    statements = example.statements()
    statements["tools"] = dict(reversed(statements["tools"].items()))
    statements["source"]["sha256"] = dict(reversed(statements["source"]["sha256"].items()))
    assert card(statements) == card()


def test_the_folder_of_the_original_is_not_on_the_card() -> None:
    assert "somebody" not in card()


# Text


def test_tensors_that_are_left_out_on_the_word_of_the_publisher_are_named() -> None:
    stated = example.statements()
    stated["source"] = stated["source"] | {"left_out": ["mtp.first", "mtp.second"]}
    assert "that are left out on the word of the publisher:\n  mtp.first, mtp.second\n- Made with" in card(stated)
    assert "left out on the word" not in card()


def test_the_code_to_load_it_is_python_that_trusts_remote_code() -> None:
    code = block(card(), "python")
    compile(code, "card", "exec")
    assert 'repo = "example-org/Tiny-Taylor"' in code
    assert "AutoModelForCausalLM.from_pretrained(repo, trust_remote_code=True" in code


def test_the_config_stands_verbatim_in_its_order() -> None:
    written = yaml.safe_load(block(card(), "yaml"))
    assert written == example.document()
    assert list(written) == list(example.document())


def test_nothing_inside_the_config_ends_its_block() -> None:
    statements = example.statements()
    statements["config"]["card"]["contact"] = "first\n```\n# a heading\n````\nlast"
    assert yaml.safe_load(block(card(statements), "yaml")) == statements["config"]


def test_hostile_names_stay_in_their_cells() -> None:
    name = "a|b\n# c <script>alert(1)</script> [x](y) `z`"
    data_set = example.exactness().data_sets[1].model_copy(update={"name": name})
    statements = example.statements(exactness=example.exactness(data_set))
    statements["slowdown"]["device"] = name
    statements["source"]["sha256"] = {name: "e" * 64}
    # Behind the metadata, where YAML keeps them in quotes.
    text = card(statements).split("\n---\n", 1)[1]
    assert "<script>" not in re.sub(r"\\<", "", text)
    assert "\n# c" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 6
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, table


@pytest.mark.parametrize("layers", [1, 7, 8, 9, 80])
def test_every_layer_is_in_one_row_of_a_short_table(layers: int) -> None:
    one = example.converted().layers[0]
    converted = example.converted().model_copy(update={"layers": (one,) * layers})
    exactness = example.exactness()
    exactness = exactness.model_copy(update={"layers": exactness.layers[:1] * layers})
    text = card(example.statements(converted=converted, exactness=exactness))
    _, _, table = text.partition("| Layers |")
    rows = re.findall(r"^\| (\d+)(?: to (\d+))? \|", table.partition("\n\n")[0], re.MULTILINE)
    covered = [layer for first, last in rows for layer in range(int(first), int(last or first) + 1)]
    assert covered == list(range(layers))
    assert len(rows) <= 8


def test_one_order_for_all_neurons_is_said_in_place_of_an_infinite_tolerance() -> None:
    statements = example.statements()
    statements["conversion"]["tolerance"] = "Infinity"
    text = card(statements)
    assert "| Orders | the same for every neuron |" in text
    assert "nfinit" not in text


def test_the_basis_is_described_as_what_it_is() -> None:
    statements = example.statements()
    assert "Chebyshev polynomials" in card(statements)
    statements["conversion"]["basis"] = "taylor"
    text = card(statements)
    assert "Taylor series about its local embedding" in text
    assert "Chebyshev" not in text
