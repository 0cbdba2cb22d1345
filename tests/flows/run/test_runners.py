"""Parts of a conversion on other workers: the same bytes, errors as the parts raised them, and no worker left over."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import dask
import psutil
import pytest
import torch
from distributed.client import FutureCancelledError
from prefect import flow
from prefect.settings import PREFECT_API_URL
from ray import exceptions
from safetensors.torch import load_file

from flows.run import runners
from flows.run.log_filter import without_tracebacks
from flows.run.runners import carried_by
from taylor_ops.capture.capture import capture
from taylor_ops.config.conversion import Conversion, Execution
from taylor_ops.config.texts import Calibration
from taylor_ops.conversion import convert as conversion
from taylor_ops.conversion import parts, terms
from taylor_ops.conversion.parts import Carry, Job
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.errors import BadInput, ReleaseError, WorkFailed
from taylor_ops.model.original import Original
from taylor_ops.series.plan import Plan
from taylor_ops.storage.files import read_json, sha256_of_tree
from tests.flows.test_release import published
from tests.flows.test_release import run as released
from tests.support import killed_parts
from tests.support.tiny_models import save_tiny_model

pytestmark = pytest.mark.usefixtures("prefect_server", "one_layer_a_part", "consumer_in_this_process")

ROOT = Path(__file__).parents[3]
CONVERSION = Conversion(tolerance=1e-4)
LAYERS = 4
OTHERS: list[Literal["processes", "dask", "ray"]] = ["processes", "dask", "ray"]


@dataclasses.dataclass(frozen=True)
class Sample:
    """A tiny model with one shard a layer or so, its captured ranges and a plan, and its sequential conversion."""

    original: Path
    ranges: Path
    plan: Plan
    record: ConvertedModel
    converted: Path

    @property
    def subject(self) -> terms.Subject:
        """What the plan was taken from."""
        return terms.Subject(Original(self.original), self.ranges, CONVERSION)


@pytest.fixture
def one_layer_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PART_VALUES", 0)


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    root = tmp_path_factory.mktemp("parts")
    original = save_tiny_model(root / "original", num_hidden_layers=LAYERS)
    calibration = Calibration(tokens=1024, sequence_tokens=128)
    captured = capture(original, "float32", calibration, torch.device("cpu"), root / "ranges", silent)
    ranges = root / "ranges" / captured.file
    subject = terms.Subject(Original(original), ranges, CONVERSION)
    plan = subject.expansions().ladder()[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_PART_VALUES", 0)
        record = conversion.convert(subject, plan, root / "converted", silent)
    return Sample(original, ranges, plan, record, root / "converted")


def silent(_done: int, _total: int) -> None:
    """Progress that nobody watches."""


@flow
def converted(
    sample: Any, folder: Path, execution: Execution, progress: Any, kept: Path | None = None
) -> ConvertedModel:
    """Convert the sample as the stage of a release does."""
    without_tracebacks()
    carry = carried_by(execution)
    return conversion.convert(sample.subject, sample.plan, folder, progress, kept, carry)


@pytest.mark.parametrize(
    ("runner", "workers"),
    [("threads", 1), ("threads", 2), ("threads", 5), ("processes", 2), ("dask", 2), ("ray", 2)],
)
def test_every_runner_gives_the_bytes_and_the_record_of_one_process(
    sample: Sample, tmp_path: Path, runner: Any, workers: int
) -> None:
    told: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    execution = Execution(runner=runner, workers=workers)
    record = converted(sample, tmp_path / "converted", execution, lambda *progress: told.append(progress))
    assert sha256_of_tree(tmp_path / "converted") == sha256_of_tree(sample.converted)
    assert record == sample.record
    assert told == [(done, LAYERS + 1) for done in range(1, LAYERS + 2)]
    assert torch.get_num_threads() == threads


def test_parts_that_are_kept_are_not_carried_again_and_another_runner_goes_on_with_them(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    kept = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        conversion.convert(sample.subject, sample.plan, tmp_path / "converted", stops, kept)
    carried: list[Job] = []
    usual = runners._carry

    def seen(execution: Execution, jobs: Sequence[Job], report: Any) -> None:
        carried.extend(jobs)
        usual(execution, jobs, report)

    monkeypatch.setattr(runners, "_carry", seen)
    converted(sample, tmp_path / "converted", Execution(runner="threads"), silent, kept)
    assert [job.folder.name for job in carried] == ["00002", "00003", "00004"]
    assert sha256_of_tree(tmp_path / "converted") == sha256_of_tree(sample.converted)


def test_a_killed_run_leaves_no_worker_and_the_next_goes_on_part_by_part(sample: Sample, tmp_path: Path) -> None:
    sample.plan.write(tmp_path / "plan.json")
    kept = tmp_path / "kept"
    request = {
        "original": str(sample.original),
        "ranges": str(sample.ranges),
        "plan": str(tmp_path / "plan.json"),
        "conversion": CONVERSION.model_dump(mode="json"),
        "folder": str(tmp_path / "converted"),
        "kept": str(kept),
    }
    ended = subprocess.run(
        [sys.executable, killed_parts.__file__],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": str(PREFECT_API_URL.value())},
    )
    assert ended.returncode == -signal.SIGKILL
    left = [psutil.Process(int(pid)) for pid in ended.stdout.split() if psutil.pid_exists(int(pid))]
    assert len(ended.stdout.split()) >= 2
    assert psutil.wait_procs(left, timeout=60)[1] == []

    assert not (tmp_path / "converted").exists()
    there = sorted(path.name for path in kept.glob("0*"))
    assert 2 <= len(there) <= LAYERS + 1
    times = {name: (kept / name).stat().st_mtime_ns for name in there}
    converted(sample, tmp_path / "converted", Execution(runner="sequential"), silent, kept)
    assert sha256_of_tree(tmp_path / "converted") == sha256_of_tree(sample.converted)
    assert {name: (kept / name).stat().st_mtime_ns for name in there} == times


# Errors


@pytest.fixture
def without_a_shard(sample: Sample, tmp_path: Path) -> Sample:
    """The sample from an original whose index names a file that is not there: parts find out, preparation does not."""
    folder = save_tiny_model(tmp_path / "original", num_hidden_layers=LAYERS)
    file = (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(load_file(file), file.name)
    weight_map["model.norm.weight"] = "gone.safetensors"
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return dataclasses.replace(sample, original=folder)


@pytest.mark.parametrize("runner", ["threads", *OTHERS])
def test_the_error_of_a_part_comes_back_as_the_part_raised_it_and_no_traceback_is_shown(
    without_a_shard: Sample, tmp_path: Path, runner: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput) as caught:
        converted(without_a_shard, tmp_path / "converted", Execution(runner=runner, workers=1), silent)
    assert f"{tmp_path / 'original' / 'gone.safetensors'} is missing" in caught.value.cause
    assert caught.value.remedy == "fetch the checkpoint again"
    assert not (tmp_path / "converted").exists()
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err


class Deadly:
    """A part that ends every other process that receives it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _end_all_but, (os.getpid(),)


def _end_all_but(process: int) -> Deadly:
    if os.getpid() != process:
        os._exit(1)
    return Deadly()


@flow
def carried(execution: Execution, jobs: Any) -> None:
    """Carry jobs without a conversion around them."""
    carry: Carry | None = carried_by(execution)
    assert carry is not None
    carry(jobs, lambda _done: None)


@pytest.mark.parametrize("runner", ["processes", "ray"])
def test_a_worker_that_dies_is_said_in_two_lines(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Any
) -> None:
    # Ray would have three more workers die of it.
    monkeypatch.setenv("RAY_TASK_MAX_RETRIES", "0")
    deadly: Any = Deadly()
    job = Job(sample.original, sample.ranges, sample.plan, CONVERSION, deadly, tmp_path / "00000")
    with pytest.raises(WorkFailed, match=f"a worker of runner `{runner}` died") as caught:
        carried(Execution(runner=runner, workers=1), [job])
    assert "execution.workers" in caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2


class Broken:
    """A task runner on whose workers every part ends with an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def map(self, _task: Any, given: Any) -> list[Broken]:
        return [self for _ in given["job"]]

    def result(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("runner", "error", "cause", "remedy"),
    [
        ("dask", ModuleNotFoundError("No module named 'taylor_ops'"), "what a part needs: No module", "install"),
        ("dask", FutureCancelledError("part", "scheduler-connection-lost"), "its cluster did: part", "run again"),
        ("ray", exceptions.RaySystemError("No module named 'taylor_ops'"), "what a part needs: System", "install"),
        ("ray", exceptions.RaySystemError("Broken pipe"), "or its cluster did: System error: Broken", "run again"),
    ],
)
def test_a_cluster_that_cannot_work_is_said_in_two_lines(
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runner: Literal["dask", "ray"],
    error: Exception,
    cause: str,
    remedy: str,
) -> None:
    _, deaths = runners._RUNNERS[runner](Execution(runner=runner))
    monkeypatch.setitem(runners._RUNNERS, runner, lambda _execution: (Broken(error), deaths))
    job = Job(sample.original, sample.ranges, sample.plan, CONVERSION, parts.Part(), tmp_path / "00000")
    with pytest.raises(WorkFailed, match=cause) as caught:
        carried(Execution(runner=runner), [job])
    assert remedy in caught.value.remedy
    assert len(str(caught.value).splitlines()) == 2


def test_a_ray_cluster_of_this_machine_is_not_joined_unasked() -> None:
    runner, deaths = runners._ray(Execution(runner="ray", workers=3))
    assert (runner.init_kwargs["address"], runner.init_kwargs["num_cpus"]) == ("local", 3)
    assert not issubclass(exceptions.RayTaskError, deaths)


def test_a_cluster_that_does_not_answer_is_named(sample: Sample, tmp_path: Path) -> None:
    execution = Execution(runner="dask", address="tcp://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(WorkFailed, match=r"no dask cluster answers at tcp://127\.0\.0\.1:1"),
    ):
        converted(sample, tmp_path / "converted", execution, silent)


@pytest.mark.usefixtures("simulated_clock")
@pytest.mark.parametrize("runner", ["dask", "ray"])
def test_a_missing_extra_ends_a_release_before_anything_is_written(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _name: None)
    with pytest.raises(BadInput, match=f"needs the package prefect-{runner}") as caught:
        released(tiny_config, tmp_path / "a", execution__runner=runner)
    assert caught.value.remedy == f"pip install taylor-release[{runner}]"
    assert not (tmp_path / "a" / "tiny" / "stages").exists()


# Whole releases


@pytest.mark.usefixtures("simulated_clock")
def test_who_converts_is_no_part_of_what_is_released(tiny_config: Path, tmp_path: Path) -> None:
    released(tiny_config, tmp_path / "a")
    released(tiny_config, tmp_path / "b", execution__runner="threads", execution__workers="3")
    assert sha256_of_tree(tmp_path / "a" / "hub") == sha256_of_tree(tmp_path / "b" / "hub")
    manifest = read_json(tmp_path / "b" / "tiny" / "1.0.0" / "bundle" / "taylor_release.json")
    assert "execution" not in manifest["config"]
    again = released(tiny_config, tmp_path / "b", execution__runner="sequential")
    assert all(cost.cached for cost in again.stages.values())


@pytest.mark.usefixtures("simulated_clock")
def test_a_part_that_fails_ends_the_release_and_the_next_run_goes_on_with_the_others(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    usual, made = conversion._convert_part, []

    def fails(job: Job, *more: Any) -> None:
        if job.folder.name == "00001":
            raise WorkFailed("the disk is full", "free some space")
        usual(job, *more)

    def noted(job: Job, *more: Any) -> None:
        made.append(job.folder.name)
        usual(job, *more)

    monkeypatch.setattr(conversion, "_convert_part", fails)
    with pytest.raises(ReleaseError) as caught:
        released(tiny_config, tmp_path / "a", execution__runner="threads", execution__workers="1")
    assert (caught.value.cause, caught.value.remedy) == ("the disk is full", "free some space")
    assert published(tmp_path / "a") == []
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err

    monkeypatch.setattr(conversion, "_convert_part", noted)
    again = released(tiny_config, tmp_path / "a", execution__runner="threads", execution__workers="1")
    assert "00001" in made
    assert "00000" not in made
    assert again.stages["capture"].cached
