"""A card by a template of one's own, the metadata of any card, and its plots."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from taylor_ops.audit.record import AuditRecord, Compiled
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.card import card_template, render_card
from taylor_ops.bundle.card_plots import card_plots
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config.card import Card
from taylor_ops.config.exactness import Exactness
from taylor_ops.config.source import FolderSource
from taylor_ops.config.texts import DatasetSource, TextSource
from taylor_ops.config_file.read import ConfigErrors, read
from taylor_ops.errors import BadInput
from taylor_ops.latency.record import LatencyRecord
from taylor_ops.storage.files import read_json, sha256_of
from tests.support import release_example as example
from tests.taylor_ops.conftest import Sample

OWN = "---\n{{ metadata }}\nhouse: ours\n---\n\n# {{ name }}\n\n{{ coverage.neurons_protected | count }} neurons.\n"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.md.j2"
    file.write_text(OWN, encoding="utf-8")
    return file


def by(template: Path) -> Card:
    return Card(license="mit", template=template)


def some_unprotected() -> dict[str, Any]:
    converted = example.converted()
    layers = tuple(layer.model_copy(update={"clear": 384}) for layer in converted.layers)
    return example.statements(
        converted=converted.model_copy(
            update={"layers": layers, "neurons_protected": converted.neurons_total - 12 * 384}
        )
    )


# A template of one's own


def test_a_card_is_written_by_the_template_that_the_config_names(own: Path) -> None:
    text = render_card(example.statements(), example.config(card=by(own)))
    assert text.endswith("# tiny-taylor\n\n18,432 neurons.\n")
    data = ModelCard(text).data
    assert (data.license, data.house) == ("mit", "ours")
    assert card_template(by(own)) == OWN


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("# {{ name }}\n", "`license` of the metadata is not in the card"),
        ("---\nlicense: other\n---\n", "`license` of the metadata is not in the card"),
        ("---\n{{ metadata }}\n---\n{{ slowdown.median }}", "no attribute 'median'"),
        ("---\n{{ metadata }}\n---\n{{ name | count }}", "ValueError"),
        ("---\n{{ metadata }}\n: [\n---\n", "its metadata cannot be read"),
        ("---\n{{ metadata }}\n---\n{{ 1 // 0 }}", "ZeroDivisionError"),
    ],
)
def test_a_template_that_makes_no_card_is_named_with_the_reason(own: Path, template: str, reason: str) -> None:
    own.write_text(template, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        render_card(example.statements(), example.config(card=by(own)))
    assert caught.value.cause.startswith(f"{own} makes no card: ")
    assert reason in caught.value.cause
    assert "docs/card.md" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "reason"), [(None, "cannot be read"), ("{% if %}", "is no jinja2 template: line 1"), (OWN, None)]
)
def test_the_template_is_read_when_the_config_is_checked(tmp_path: Path, text: str | None, reason: str | None) -> None:
    document = example.document()
    document["card"] |= {"template": "cards/own.md.j2"}
    (tmp_path / "release.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    if text is not None:
        (tmp_path / "cards").mkdir()
        (tmp_path / "cards" / "own.md.j2").write_text(text, encoding="utf-8")
    if reason is None:
        assert read(tmp_path / "release.yaml").config.card.template == tmp_path / "cards" / "own.md.j2"
        return
    with pytest.raises(ConfigErrors, match=f"card.template: .*{reason}"):
        read(tmp_path / "release.yaml")


# Metadata


def test_results_are_in_the_index_of_the_hub_under_the_names_of_its_data_sets() -> None:
    gsm8k = DatasetSource(name="openai/gsm8k", split="test", revision=example.COMMIT)
    prompts = (TextSource(name="gsm8k", dataset=gsm8k), TextSource(name="project", builtin="held_out"))
    card = ModelCard(render_card(example.statements(), example.config(exactness=Exactness(prompts=prompts))))
    assert card.data.model_name == "tiny-taylor"
    found = {
        (one.dataset_name, one.metric_type): (one.dataset_type, one.metric_value) for one in card.data.eval_results
    }
    assert found == {
        ("project", "exact_match"): ("project", 1.0),
        ("gsm8k", "exact_match"): ("openai/gsm8k", 23 / 24),
        ("running-text", "perplexity"): ("running-text", 17.25631),
    }


def test_the_revision_of_the_base_model_is_stated_where_it_is_the_source() -> None:
    assert ModelCard(render_card(example.statements(), example.config())).data.base_model_revision == example.COMMIT
    elsewhere = example.config(source=FolderSource(kind="folder", path=Path("/models/tiny")))
    assert "base_model_revision" not in ModelCard(render_card(example.statements(), elsewhere)).data.to_dict()


def test_another_licence_needs_its_name_and_address() -> None:
    card = Card(license="other", license_name="house-1", license_link="https://example.org/licence")
    data = ModelCard(render_card(example.statements(), example.config(card=card))).data
    assert (data.license, data.license_name, data.license_link) == ("other", "house-1", "https://example.org/licence")
    for wrong in ({"license": "other"}, {"license": "mit", "license_name": "house-1"}):
        with pytest.raises(ValueError, match="is needed if `license` is `other`"):
            Card(**wrong)


# Text


def test_unprotected_neurons_are_said_and_not_called_protected() -> None:
    text = render_card(some_unprotected(), example.config())
    assert "| Protected neurons | 13,824 of 18,432 (75 %) |" in text
    assert "The other 4,608 neurons are unprotected" in text
    assert "- It does not protect 4,608 of 18,432 neurons" in text
    assert "| 0 to 1 | 75 % |" in text
    assert "neurons are unprotected" not in render_card(example.statements(), example.config())


def test_the_interval_of_the_slowdown_stands_beside_its_device_and_every_other() -> None:
    statements = example.statements()
    statements["slowdown"]["devices"] = [{"device": "Other GPU 9", "target": 4.0, "tolerance": 0.05}]
    text = render_card(statements, example.config())
    assert "between\n2.70 and 3.30. Both models" in text
    assert "That was measured on Example CPU 7, 2 threads" in text
    assert "| Other GPU 9 | 4 | 3.80 to 4.20 |" in text
    assert "Other GPU" not in render_card(example.statements(), example.config())


def test_a_signature_is_said_with_how_to_check_it() -> None:
    signature = {"file": "model.sig", "public_key_sha256": "f" * 64}
    text = render_card(example.statements() | {"signature": signature}, example.config())
    assert "f" * 64 in text
    assert "--signature model.sig FOLDER" in text
    assert "OpenSSF" not in render_card(example.statements(), example.config())


# Plots


@pytest.fixture(scope="module")
def usual() -> dict[str, bytes]:
    """The plots of the example as it is."""
    return card_plots(example.statements())


def test_plots_are_pictures_with_the_same_bytes_each_time_and_without_a_trace(usual: dict[str, bytes]) -> None:
    assert card_plots(example.statements()) == usual
    for name, picture in usual.items():
        assert name.endswith(".png")
        assert picture.startswith(PNG)
        assert b"tEXt" not in picture
        assert b"Matplotlib" not in picture


def test_plots_follow_orders_coverage_target_and_devices(usual: dict[str, bytes]) -> None:
    clear = card_plots(some_unprotected())
    assert clear["layers.png"] != usual["layers.png"]
    assert clear["slowdown.png"] == usual["slowdown.png"]
    for change in ({"target": 4.0}, {"tolerance": 0.2}, {"device": "other"}, {"devices": [example_device()]}):
        statements = example.statements()
        statements["slowdown"] |= change
        assert card_plots(statements)["slowdown.png"] != usual["slowdown.png"]


@pytest.mark.parametrize(
    ("plot", "name", "value"),
    [
        ("latency.png", "seconds_original", [1.0, 1.1]),
        ("latency.png", "seconds_bundle", [3.0, 3.3]),
        ("calibration.png", "trials", [{"columns": 9_000, "predicted": 2.0, "slowdown": 2.5, "ci95": [2.4, 2.6]}]),
        ("slowdown.png", "slowdown", 3.2),
        ("slowdown.png", "ci95", [2.8, 3.4]),
        ("slowdown.png", "devices", [{"slowdown": 2.5, "ci95": [2.4, 2.6]}]),
    ],
)
def test_plots_follow_what_was_timed(usual: dict[str, bytes], plot: str, name: str, value: Any) -> None:
    statements = example.statements()
    statements["slowdown"]["measured"][name] = value
    plots = card_plots(statements)
    assert {changed for changed in plots if plots[changed] != usual[changed]} == {plot}


def test_the_slowdown_is_drawn_as_measured_or_else_as_the_target_and_the_card_says_which(
    usual: dict[str, bytes],
) -> None:
    statements = example.statements()
    assert "Measured time per token over that of the original, with its 95 % interval" in render_card(
        statements, example.config()
    )
    for section in ("slowdown", "audit"):
        del statements[section]["measured"]
    target = card_plots(statements)["slowdown.png"]
    assert target != usual["slowdown.png"]
    assert "![Target of the time per token over that of the original, with its tolerance](slowdown.png)" in render_card(
        statements, example.config()
    )
    statements["slowdown"]["tolerance"] = 0.2
    assert card_plots(statements)["slowdown.png"] != target


@pytest.mark.filterwarnings("error")
def test_a_slowdown_that_is_no_number_is_drawn_without_a_bar() -> None:
    statements = example.statements()
    statements["slowdown"]["measured"] |= {"slowdown": "NaN", "ci95": ["NaN", "Infinity"]}
    assert card_plots(statements)["slowdown.png"].startswith(PNG)


def test_what_was_timed_stays_out_of_a_bundle_that_is_to_have_the_same_bytes_again(
    llama: Sample, tmp_path: Path
) -> None:
    other = example.latency(example.trial(307_200, 9.9, 3.01))
    files: dict[bool, list[dict[str, str]]] = {}
    for measured in (False, True):
        config = example.config()
        config = config.model_copy(update={"card": config.card.model_copy(update={"measured": measured})})
        for number, latency in enumerate((example.latency(), other)):
            folder = tmp_path / f"{measured}-{number}"
            made = assemble(llama.converted, config, example.document(), evidence_with(latency), folder)
            files.setdefault(measured, []).append(made.files)
    first, again = files[False]
    assert first == again
    assert not {"latency.png", "calibration.png"} & first.keys()
    first, again = files[True]
    differ = {name for name in first.keys() | again.keys() if first.get(name) != again.get(name)}
    plots = {"latency.png", "calibration.png", "slowdown.png"}
    assert {name for name in differ if not name.startswith("attestations/")} == {
        "README.md",
        "taylor_release.json",
    } | plots


def test_what_is_left_of_the_slowdown_is_in_a_manifest_that_may_state_it(llama: Sample, tmp_path: Path) -> None:
    manifests: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for measured, slowdown in itertools.product(manifests, (1.4, 1.5)):
        compiled = Compiled(alone=example.timed(slowdown), both=example.timed(slowdown))
        audit = example.audit().model_copy(update={"compiled": compiled})
        config = example.config(card=example.config().card.model_copy(update={"measured": measured}))
        folder = tmp_path / f"{measured}-{slowdown}"
        assemble(llama.converted, config, example.document(), evidence_with(example.latency(), audit), folder)
        manifests[measured].append(read_json(folder / MANIFEST))
    first, again = manifests[False]
    assert first == again
    assert [manifest["audit"]["measured"]["compiled"]["alone"]["slowdown"] for manifest in manifests[True]] == [
        1.4,
        1.5,
    ]


def evidence_with(latency: LatencyRecord, audit: AuditRecord | None = None) -> Findings:
    return Findings(
        source=example.source(),
        converted=example.converted(),
        latency=latency,
        exactness=example.exactness(),
        audit=audit or example.audit(),
    )


def example_device() -> dict[str, Any]:
    return {"device": "$x$ " * 30, "target": 4.0, "tolerance": 0.05}


def test_the_plots_of_a_bundle_are_in_its_manifest_and_on_its_card(llama: Sample, tmp_path: Path) -> None:
    assemble(
        llama.converted, example.config(), example.document(), evidence_with(example.latency()), tmp_path / "bundle"
    )
    manifest = read_json(tmp_path / "bundle" / MANIFEST)
    text = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    for name in ("layers.png", "slowdown.png", "calibration.png", "latency.png"):
        assert manifest["files"][name] == sha256_of(tmp_path / "bundle" / name)
        assert f"]({name})" in text
