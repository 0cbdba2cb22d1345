"""Results of a release in the two forms that the Hub reads: `model-index` of the card, and `.eval_results/*.yaml`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from taylor_ops.bundle.manifest import MANIFEST
from taylor_ops.config.release import ReleaseConfig

EVAL_RESULTS = ".eval_results/taylor_release.yaml"
"""The file of results on data sets of the Hub."""

EQUAL_CONTINUATIONS, PERPLEXITY = "equal_continuations", "perplexity"
"""Tasks of the results. No benchmark has the first, so that no leaderboard takes it for a score of its own."""


class _Result(NamedTuple):
    """One result: its text, what was measured, the value, and what it is in words."""

    text: str
    task: str
    value: float
    words: str


def model_index(statements: Mapping[str, Any], config: ReleaseConfig) -> list[EvalResult]:
    """All results, for the metadata of the card.

    Args:
        statements: What the manifest states.
        config: Says which texts are data sets of the Hub.
    """
    data_sets = _data_sets(config)
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=data_sets[result.text].name if result.text in data_sets else result.text,
            dataset_name=result.text,
            metric_type="exact_match" if result.task == EQUAL_CONTINUATIONS else result.task,
            metric_name=result.words,
            metric_value=result.value,
        )
        for result in _results(statements)
    ]


def eval_results(statements: Mapping[str, Any], config: ReleaseConfig) -> str | None:
    """The YAML of results on data sets of the Hub, which it links with these data sets. None if there are none.

    Args:
        statements: What the manifest states.
        config: Says which texts are data sets of the Hub, and where the bundle is published.
    """
    data_sets, publish = _data_sets(config), config.publish
    manifest = f"https://huggingface.co/{publish.repo_id}/blob/v{config.version}/{MANIFEST}"
    entries = [
        EvalResultEntry(
            dataset_id=str(data_sets[result.text].name),
            task_id=result.task,
            value=result.value,
            dataset_revision=data_sets[result.text].revision,
            source_url=manifest if publish.target == "hub" else None,
            source_name=MANIFEST if publish.target == "hub" else None,
            notes=f"{result.words}; text `{result.text}` of the release. No score of a benchmark.",
        )
        for result in _results(statements)
        if result.text in data_sets
    ]
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=120)


def _data_sets(config: ReleaseConfig) -> dict[str, Any]:
    """The data sets of the Hub, by the names of the texts that come from them."""
    texts = (*config.exactness.prompts, *config.exactness.running_text)
    return {text.name: text.dataset for text in texts if text.dataset and text.dataset.name}


def _results(statements: Mapping[str, Any]) -> list[_Result]:
    """Shares of prompts continued with the same tokens, and perplexities."""
    exactness = statements["exactness"]
    words = f"Share of prompts continued with the tokens of the original, {exactness['new_tokens']} each"
    shares = [
        _Result(one["name"], EQUAL_CONTINUATIONS, one["bundle"]["prompts_equal"] / one["bundle"]["prompts"], words)
        for one in exactness["data_sets"]
        if one["bundle"]["prompts"]
    ]
    perplexities = [
        _Result(text["name"], PERPLEXITY, float(text["bundle"]), "Perplexity")
        for text in exactness["perplexity"]
        if math.isfinite(float(text["bundle"]))
    ]
    return shares + perplexities
