"""Tasks of lm-eval over questions beside them: one chooses by likelihood, one generates greedily."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

QUESTIONS = 24


def written(folder: Path, name: str = "choice", **changes: Any) -> Path:
    """The file of a task of multiple choice over questions beside it. A change to None takes a key away."""
    asked = [
        {"question": f"What is {n} plus {n}?", "choices": [f"The sum is {2 * n}", f"Nobody knows {n}"], "gold": n % 2}
        for n in range(QUESTIONS)
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")
    values = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "asked.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    } | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({key: one for key, one in values.items() if one is not None}), encoding="utf-8")
    return path


def generated(folder: Path) -> Path:
    """The file of a task whose answers are generated."""
    return written(
        folder,
        "answer",
        output_type="generate_until",
        doc_to_choice=None,
        doc_to_target="{{choices[gold]}}",
        generation_kwargs={"until": ["\n\n"], "max_gen_toks": 4, "do_sample": False},
        metric_list=[{"metric": "exact_match"}],
    )
