"""Loading: models that memory does not hold are read from disk layer by layer, and are the same models."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch

from taylor_ops import models
from taylor_ops.config import Exactness, TextSource
from taylor_ops.errors import BadInput
from taylor_ops.exactness import ExactnessRecord, validate
from taylor_ops.models import device_named, free_memory, load_both
from tests.taylor_ops.conftest import CPU, Sample, silent


def little_memory(monkeypatch: pytest.MonkeyPatch, sample: Sample, share: float) -> None:
    """Memory for a share of what original and bundle need."""
    needed = sample.record.bytes + sample.record.original_bytes
    monkeypatch.setattr(models, "free_memory", lambda _device: int(share * needed / models._ROOM))


def validated(sample: Sample, prompts: Path) -> ExactnessRecord:
    held_out = TextSource(name="local", file=prompts, limit=4)
    settings = Exactness(prompts=(held_out,), running_text=(), new_tokens=6, batch_size=4, floor_batch_size=2)
    return validate(sample.original, sample.converted, sample.ranges, sample.conversion, settings, CPU, silent)


def test_models_that_do_not_fit_are_validated_with_the_same_result(
    gated_or_plain: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in ("one two", "three", "four five", "six")))
    roomy = validated(gated_or_plain, prompts)
    little_memory(monkeypatch, gated_or_plain, 0.7)
    tight = validated(gated_or_plain, prompts)
    # Weights at other addresses are summed in another order: the last digits may differ.
    assert tight.continuations == roomy.continuations
    assert tight.data_sets[0].bundle.prompts_equal == roomy.data_sets[0].bundle.prompts_equal == 4
    for found, expected in zip(tight.layers, roomy.layers, strict=True):
        assert found.path == expected.path
        assert found.largest == pytest.approx(expected.largest, rel=0.05)
    assert "layers are read from disk" in caplog.text


def test_only_models_that_do_not_fit_have_layers_on_the_disk(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    for share, on_disk in ((1.01, False), (0.7, True)):
        little_memory(monkeypatch, llama, share)
        for model in load_both(llama.original, llama.converted, "float32", CPU):
            assert ("disk" in set(getattr(model, "hf_device_map", {}).values())) == on_disk


def test_memory_that_does_not_hold_the_embeddings_is_too_little(llama: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    little_memory(monkeypatch, llama, 0.01)
    with pytest.raises(BadInput, match="do not hold even the embeddings"):
        load_both(llama.original, llama.converted, "float32", CPU)


def test_free_memory_is_that_of_the_machine() -> None:
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50


def test_memory_that_torch_keeps_for_tensors_to_come_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def told(name: str, answer: object) -> None:
        monkeypatch.setattr(torch.cuda, name, lambda device: (asked.append(device), answer)[1])

    told("mem_get_info", (1000, 5000))
    told("memory_reserved", 700)
    told("memory_allocated", 200)
    assert free_memory(torch.device("cuda:1")) == 1000 + 700 - 200
    assert set(asked) == {torch.device("cuda:1")}


def test_a_model_that_only_holds_itself_takes_no_memory() -> None:
    model = torch.nn.Linear(2, 2)
    model.itself = [model]
    gone = weakref.ref(model)
    del model
    free_memory(CPU)
    assert gone() is None


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "cuda:", "cuda:-1", "CPU", "cpu:0", "cpu\n", ""])
def test_a_device_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is not known") as caught:
        device_named(name)
    assert "auto, cpu, cuda and cuda:N" in caught.value.remedy


@pytest.mark.parametrize(("count", "there"), [(1, "cuda:0 alone"), (2, "cuda:0 to cuda:1")])
def test_a_gpu_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch, count: int, there: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert device_named(f"cuda:{count - 1}") == torch.device("cuda", count - 1)
    assert device_named("auto") == device_named("cuda") == torch.device("cuda")
    with pytest.raises(BadInput, match=f"device `cuda:{count}`: {there} can be seen here"):
        device_named(f"cuda:{count}")
