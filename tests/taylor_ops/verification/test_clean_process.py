"""A bundle runs where nothing but torch and transformers is, and fails loudly when it is loaded as something else."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from taylor_ops.errors import GateRejected
from taylor_ops.model.loading import load_original
from taylor_ops.verification import clean_process as room
from taylor_ops.verification.clean_process import clean_process, link_packages
from tests.taylor_ops.conftest import CPU, Sample

NOT_FOR_CONSUMERS = ("taylor_ops", "flows", "tests", "prefect", "pydantic_settings", "pytest", "hypothesis", "gguf")
PROMPTS = [[72, 101, 108, 108, 111], [40], [84, 104, 101, 32, 119, 101, 97, 116, 104, 101, 114, 32, 105, 115]]

IMPORTS = """
import importlib, json
imports = {}
for name in NAMES:
    try:
        importlib.import_module(name)
        imports[name] = True
    except ModuleNotFoundError as error:
        imports[name] = error.name != name
print(json.dumps(imports))
"""

CONSUMER = """
import json
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, LlamaModel, pipeline

refused = {}
for name, load in {
    "model": lambda: AutoModelForCausalLM.from_pretrained(BUNDLE),
    "model, trust refused": lambda: AutoModelForCausalLM.from_pretrained(BUNDLE, trust_remote_code=False),
    "config": lambda: AutoConfig.from_pretrained(BUNDLE),
    "pipeline": lambda: pipeline("text-generation", model=BUNDLE),
    "plain class": lambda: LlamaForCausalLM.from_pretrained(BUNDLE),
    "plain class without head": lambda: LlamaModel.from_pretrained(BUNDLE),
}.items():
    try:
        refused[name] = f"returned a {type(load()).__name__}"
    except Exception as error:
        refused[name] = f"{type(error).__name__}: {error}"

tokenizer = AutoTokenizer.from_pretrained(BUNDLE, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(BUNDLE, trust_remote_code=True, dtype="auto").eval()


def continued(prompts):
    length = max(map(len, prompts))
    ids = torch.tensor([[258] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return model.generate(
        input_ids=ids, attention_mask=mask, min_new_tokens=8, max_new_tokens=8, do_sample=False, pad_token_id=258
    )[:, length:].tolist()


generator = pipeline("text-generation", model=BUNDLE, trust_remote_code=True)
spoken = generator("Hello", max_new_tokens=8, do_sample=False, return_full_text=False)[0]["generated_text"]
direct = model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=8, do_sample=False, pad_token_id=258)
with torch.inference_mode():
    logits = model(input_ids=torch.arange(0, 200).reshape(2, 100)).logits
model.save_pretrained(SAVED)
tokenizer.save_pretrained(SAVED)
save_file({"logits": logits}, SAVED + "-logits.safetensors")
print()  # the question whether to trust the code ends without a line feed
print(json.dumps({
    "refused": refused,
    "padded": continued(PROMPTS),
    "alone": [continued([prompt])[0] for prompt in PROMPTS],
    "pipeline": spoken,
    "direct": tokenizer.decode(direct[0, 5:], skip_special_tokens=True),
}))
"""

AGAIN = """
import json
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(SAVED, trust_remote_code=True, dtype="auto").eval()
with torch.inference_mode():
    logits = model(input_ids=torch.arange(0, 200).reshape(2, 100)).logits
print(json.dumps(torch.equal(logits, load_file(SAVED + "-logits.safetensors")["logits"])))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to what torch and transformers need."""
    folder = tmp_path_factory.mktemp("clean") / "packages"
    link_packages(folder)
    return folder


def in_clean_process(packages: Path, program: str, **values: Any) -> Any:
    """Run a program with constants `values` on `packages` alone, and return what its last line says in JSON."""
    opening = f"import sys; sys.path.append({str(packages)!r})\n"
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    home = packages.parent
    environment = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", opening + constants + program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment | {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        cwd=home,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(packages: Path) -> Path:
    """Where the consumer saves the loaded bundle."""
    return packages.parent / "saved"


@pytest.fixture(scope="module")
def consumed(llama: Sample, packages: Path, saved: Path) -> dict[str, Any]:
    """What one consumer saw of a converted model."""
    before = sorted(path.name for path in llama.converted.iterdir())
    answer = in_clean_process(packages, CONSUMER, BUNDLE=str(llama.converted), PROMPTS=PROMPTS, SAVED=str(saved))
    assert sorted(path.name for path in llama.converted.iterdir()) == before
    found: dict[str, Any] = answer
    return found


# The process


def test_only_what_torch_and_transformers_need_can_be_imported(packages: Path) -> None:
    present = ("torch", "transformers", "safetensors", "tokenizers", "numpy", "huggingface_hub")
    # What is not installed here proves nothing by being absent there.
    assert all(importlib.util.find_spec(name) for name in (*present, *NOT_FOR_CONSUMERS))
    imports = in_clean_process(packages, IMPORTS, NAMES=[*present, *NOT_FOR_CONSUMERS])
    assert imports == dict.fromkeys(present, True) | dict.fromkeys(NOT_FOR_CONSUMERS, False)


def test_every_link_leads_to_an_installed_package(packages: Path) -> None:
    links = list(packages.iterdir())
    assert all(link.is_symlink() and link.exists() for link in links)
    assert {"torch", "transformers"} < {link.name for link in links}


def test_the_consumer_says_what_the_original_says_and_loads_nothing_of_this_project(llama: Sample) -> None:
    told: list[tuple[int, int]] = []
    with clean_process() as process:
        answer = process.answer(llama.converted, PROMPTS, 6, lambda *step: told.append(step))
    original = load_original(llama.original, "float32", CPU)
    expected = [
        original.generate(input_ids=torch.tensor([prompt]), min_new_tokens=6, max_new_tokens=6, do_sample=False)
        for prompt in PROMPTS
    ]
    assert answer["tokens"] == [tokens[0, -6:].tolist() for tokens in expected]
    assert told == [(step, 6) for step in range(7)]
    modules = set(answer["modules"])
    assert {"torch", "transformers", "transformers_modules"} <= modules
    assert not modules & set(NOT_FOR_CONSUMERS)


def test_a_bundle_that_needs_this_project_is_rejected_with_what_it_misses(llama: Sample, tmp_path: Path) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    code = (bundle / "modeling_taylor.py").read_text(encoding="utf-8")
    (bundle / "modeling_taylor.py").write_text(f"import taylor_ops\n{code}", encoding="utf-8")
    with clean_process() as process, pytest.raises(GateRejected, match="only torch and transformers") as caught:
        process.continuations_of(bundle, PROMPTS, 2)
    assert str(bundle) in caught.value.cause
    assert "taylor_ops" in caught.value.cause.partition("transformers: ")[2]
    assert "\n" not in caught.value.cause


def test_the_process_finds_neither_this_home_nor_its_tokens(
    llama: Sample, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, str] = {}
    start, refuses = subprocess.Popen, tmp_path / "refuses.py"
    refuses.write_text("raise SystemExit(1)\n", encoding="utf-8")

    def refuse(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        seen.update(options["env"])
        return start(*arguments, **options)

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("PYTHONPATH", str(llama.original))
    monkeypatch.setattr(room.subprocess, "Popen", refuse)
    monkeypatch.setattr(room.consumer, "__file__", str(refuses))
    with clean_process() as process, pytest.raises(GateRejected, match="no output"):
        process.continuations_of(llama.converted, PROMPTS, 2)
    assert seen["HF_HUB_OFFLINE"] == "1"
    assert seen["HOME"] != os.environ.get("HOME")
    assert not {"HF_TOKEN", "PYTHONPATH"} & seen.keys()


@pytest.mark.parametrize("last_words", ["", "print('[1, 2]')", "print('no JSON')"], ids=["none", "a list", "text"])
def test_a_bundle_whose_code_ends_the_process_without_an_answer_is_rejected(
    llama: Sample, tmp_path: Path, last_words: str
) -> None:
    bundle = shutil.copytree(llama.converted, tmp_path / "bundle")
    code = f"import os, sys\n{last_words}\nsys.stdout.flush()\nos._exit(0)\n"
    (bundle / "modeling_taylor.py").write_text(code, encoding="utf-8")
    with clean_process() as process, pytest.raises(GateRejected, match="does not run"):
        process.continuations_of(bundle, PROMPTS, 2)


def test_a_process_that_gets_no_bundle_ends_with_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def recorded(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(room.subprocess, "Popen", recorded)
    with clean_process():
        assert started[0].poll() is None
    assert started[0].poll() is not None


# The bundle in it


@pytest.mark.parametrize("loaded_as", ["model", "model, trust refused", "config", "pipeline"])
def test_without_trust_in_its_code_a_bundle_is_not_loaded_and_says_why(
    consumed: dict[str, Any], loaded_as: str
) -> None:
    error = consumed["refused"][loaded_as]
    assert "trust_remote_code" in error
    assert not error.startswith("returned")


@pytest.mark.parametrize("loaded_as", ["plain class", "plain class without head"])
def test_loading_a_bundle_as_the_plain_architecture_is_an_error_about_sizes(
    consumed: dict[str, Any], loaded_as: str
) -> None:
    error = consumed["refused"][loaded_as]
    assert "mismatched_sizes" in error
    assert not error.startswith("returned")


def test_a_padded_batch_is_continued_as_each_of_its_prompts_alone(consumed: dict[str, Any]) -> None:
    assert consumed["padded"] == consumed["alone"]
    assert len({tuple(tokens) for tokens in consumed["alone"]}) == len(PROMPTS)


def test_a_pipeline_says_what_generate_says(consumed: dict[str, Any]) -> None:
    assert consumed["pipeline"] == consumed["direct"]
    assert consumed["pipeline"]


def test_a_loaded_bundle_that_is_saved_is_loaded_again_with_equal_logits(
    consumed: dict[str, Any], packages: Path, saved: Path
) -> None:
    logits = load_file(f"{saved}-logits.safetensors")["logits"]
    assert logits.isfinite().all()
    assert logits.std() > 0
    assert in_clean_process(packages, AGAIN, SAVED=str(saved)) is True
