"""Loading: models that memory does not hold are read from disk layer by layer, and are the same models."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.integrations import accelerate as offloading

from taylor_ops.config.exactness import Exactness
from taylor_ops.config.texts import TextSource
from taylor_ops.errors import BadInput, WorkFailed
from taylor_ops.exactness.layers import RangeCounts, layer_errors, limits_of
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.exactness.validate import validate
from taylor_ops.machine import devices
from taylor_ops.machine.devices import device_named, free_memory
from taylor_ops.model.loading import is_partly_on_disk, load_both, load_bundle, load_in_memory, load_original
from taylor_ops.model.mlp_hooks import watched
from taylor_ops.model.original import Original
from taylor_ops.series.ranges import read_ranges
from tests.taylor_ops.conftest import CPU, Sample, converted, sample, silent


def little_memory(monkeypatch: pytest.MonkeyPatch, sample: Sample, share: float) -> None:
    """Memory for a share of what original and bundle need."""
    needed = sample.record.bytes + sample.record.original_bytes
    monkeypatch.setattr(devices, "free_memory", lambda _device: int(share * needed / devices._ROOM))


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """A tiny mixture of experts whose source has one tensor for each expert, as those on the Hub have."""
    made = sample(tmp_path_factory.mktemp("mixture"), "mixtral")
    assert any(".experts.0." in name for name in Original(made.original).checkpoint.names())
    return made


@pytest.fixture(scope="session")
def stacked(mixture: Sample, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The same mixture with the experts of a layer in one tensor, as the model has them."""
    root = tmp_path_factory.mktemp("stacked")
    original = shutil.copytree(mixture.original, root / "original")
    model = AutoModelForCausalLM.from_pretrained(mixture.original)
    model.save_pretrained(original, save_original_format=False)
    assert not any(".experts.0." in name for name in Original(original).checkpoint.names())
    return converted(original, mixture.ranges, mixture.conversion, root / "converted")


@pytest.fixture(params=["llama", "phi", "mixture", "stacked"])
def any_kind(request: pytest.FixtureRequest) -> Sample:
    """A model with MLPs of each kind in turn."""
    chosen: Sample = request.getfixturevalue(request.param)
    return chosen


def validated(sample: Sample, prompts: Path, scratch: Path | None = None) -> ExactnessRecord:
    held_out = TextSource(name="local", file=prompts, limit=4)
    settings = Exactness(prompts=(held_out,), running_text=(), new_tokens=6, batch_size=4, floor_batch_size=2)
    given = sample.subject, sample.converted, settings, CPU, silent
    return validate(*given, scratch)


def test_models_that_do_not_fit_are_validated_with_the_same_result(
    any_kind: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in ("one two", "three", "four five", "six")))
    roomy = validated(any_kind, prompts)
    little_memory(monkeypatch, any_kind, 0.7)
    tight = validated(any_kind, prompts)
    # Weights at other addresses are summed in another order: the last digits may differ.
    assert tight.continuations == roomy.continuations
    assert tight.data_sets[0].bundle.prompts_equal == roomy.data_sets[0].bundle.prompts_equal == 4
    for found, expected in zip(tight.layers, roomy.layers, strict=True):
        assert found.path == expected.path
        assert found.largest == pytest.approx(expected.largest, rel=0.05)
    assert "layers are read from disk" in caplog.text


def test_layers_on_the_disk_show_what_those_in_memory_show(
    any_kind: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlps, ranges = Original(any_kind.original).mlps, read_ranges(any_kind.ranges)
    ids = torch.randint(32, 127, (2, 24), generator=torch.Generator().manual_seed(0))
    seen = []
    for share in (1.01, 0.7):
        little_memory(monkeypatch, any_kind, share)
        first, second = load_both(any_kind.original, any_kind.converted, "float32", CPU, tmp_path)
        # Ranges without any margin, so that some activations leave them.
        counts = RangeCounts(limits_of(ranges, 0.0, CPU))
        with watched(first, mlps, counts.see), torch.inference_mode():
            first(input_ids=ids)
        seen.append((counts.use(), layer_errors(first, second, mlps, ranges, 0.5, ids.tolist())))
    (used, errors), (used_from_disk, errors_from_disk) = seen
    assert used.activations > used.outside_widened > 0
    assert used_from_disk == used
    for found, expected in zip(errors_from_disk, errors, strict=True):
        assert (found.path, found.tokens) == (expected.path, expected.tokens)
        assert found.largest == pytest.approx(expected.largest, rel=0.05)


def test_only_experts_that_are_stored_one_by_one_are_stored_again(
    any_kind: Sample, mixture: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_memory(monkeypatch, any_kind, 0.7)
    load_both(any_kind.original, any_kind.converted, "float32", CPU, tmp_path / "scratch")
    again = {path.name for path in tmp_path.rglob("*.safetensors")}
    assert all(".experts." in name for name in again)
    assert bool(again) == (any_kind is mixture)


def test_a_validation_leaves_nothing_but_what_lies_where_it_was_told(
    mixture: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, elsewhere = tmp_path / "prompts.jsonl", tmp_path / "temporary"
    prompts.write_text('{"prompt": "one two"}\n')
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    little_memory(monkeypatch, mixture, 0.7)
    validated(mixture, prompts)
    validated(mixture, prompts, tmp_path / "scratch")
    assert not list(elsewhere.iterdir())
    assert list(tmp_path.glob("scratch/original/*.safetensors"))


def test_a_disk_that_fills_up_with_layers_says_what_they_take(
    mixture: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(offloading, "save_file", full)
    little_memory(monkeypatch, mixture, 0.7)
    with pytest.raises(WorkFailed, match=r"No space left on device \(about 0\.\d MB needed, "):
        load_both(mixture.original, mixture.converted, "float32", CPU, tmp_path)


def test_only_models_that_do_not_fit_have_layers_on_the_disk(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share, on_disk in ((1.01, False), (0.7, True)):
        little_memory(monkeypatch, llama, share)
        assert (load_in_memory(llama.original, llama.converted, "float32", CPU) is None) == on_disk
        for model in load_both(llama.original, llama.converted, "float32", CPU, tmp_path):
            assert is_partly_on_disk(model) == on_disk


def test_memory_that_does_not_hold_the_embeddings_is_too_little(
    llama: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little_memory(monkeypatch, llama, 0.01)
    with pytest.raises(BadInput, match="do not hold even the embeddings"):
        load_both(llama.original, llama.converted, "float32", CPU, tmp_path)


@pytest.mark.parametrize("device", [CPU, torch.device("cuda"), torch.device("cuda:1")])
def test_weights_are_read_to_the_device_that_they_are_for(
    llama: Sample, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    asked: list[Any] = []

    def from_pretrained(_folder: Path, **how: Any) -> torch.nn.Module:
        asked.append(how["device_map"])
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    # On a machine without that device a model that is moved there would fail.
    for model in (load_original(llama.original, "float32", device), load_bundle(llama.converted, device)):
        assert not model.training
    assert asked == 2 * [{"": device}]


def test_a_model_that_is_read_to_its_device_is_the_same_model(any_kind: Sample) -> None:
    for dtype in ("float32", "bfloat16"):
        found = load_original(any_kind.original, dtype, CPU)
        expected = AutoModelForCausalLM.from_pretrained(any_kind.original, dtype=dtype).eval()
        tensors = dict(expected.named_parameters()) | dict(expected.named_buffers())
        for name, tensor in (*found.named_parameters(), *found.named_buffers()):
            assert tensor.dtype == tensors[name].dtype
            assert torch.equal(tensor, tensors.pop(name))
        assert not tensors
        assert not is_partly_on_disk(found)
        assert not hasattr(found, "_hf_hook")


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
