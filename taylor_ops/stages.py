"""What decides each stage of a release: the function that does its work, and the inputs that it is given.

A stage runs again if one of its inputs, a tool, or the code of its function with all that it imports has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from taylor_ops.audit.audit import audit, texts_read
from taylor_ops.audit.record import AuditRecord
from taylor_ops.bundle.assemble import assemble
from taylor_ops.bundle.card import card_template
from taylor_ops.bundle.findings import Findings
from taylor_ops.bundle.record import Approval, BundleRecord
from taylor_ops.capture.capture import capture
from taylor_ops.capture.record import CapturedRanges
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.conversion.convert import convert
from taylor_ops.conversion.integrity import require_as_planned
from taylor_ops.conversion.record import ConvertedModel
from taylor_ops.evidence.mark import mark
from taylor_ops.evidence.marking import Copy
from taylor_ops.exactness.record import ExactnessRecord
from taylor_ops.exactness.validate import validate
from taylor_ops.latency.calibrate import calibrate
from taylor_ops.latency.record import LatencyRecord, Transfer
from taylor_ops.latency.transfer import transfer
from taylor_ops.leaks.record import NoLeak
from taylor_ops.leaks.refuse import require_no_leak
from taylor_ops.leaks.texts import Machine
from taylor_ops.machine.devices import device_description, device_named, processor
from taylor_ops.publishing.record import Published
from taylor_ops.source.card_files import card_files
from taylor_ops.source.record import ResolvedSource
from taylor_ops.source.resolve import resolve, stamp
from taylor_ops.storage.files import sha256_of, sha256_of_tree
from taylor_ops.storage.record import Record
from taylor_ops.storage.stage_cache import stage_key
from taylor_ops.tasks.definition import definition_of
from taylor_ops.tasks.evaluate import evaluate
from taylor_ops.tasks.record import TasksRecord
from taylor_ops.texts.prompts import text_hashes
from taylor_ops.verification.record import Verified
from taylor_ops.verification.verify import verify

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Stage(Generic[R]):
    """One stage of a release.

    Attributes:
        name: The name of its folder and of its memory file.
        work: The function that does the work. Its module, with all that it imports, is the code that decides the
            result.
        record: The type of the record that the stage leaves.
        checks: Functions that the stage calls before its work. Their code counts too.
    """

    name: str
    work: Callable[..., R]
    record: type[R]
    checks: tuple[Callable[..., None], ...] = ()

    def key(self, inputs: Mapping[str, Any]) -> str:
        """The key of this stage for `inputs`: a hash of all that decides the result."""
        return stage_key(self.modules(), inputs)

    def modules(self) -> list[str]:
        """The modules of the functions of this stage."""
        return [function.__module__ for function in (self.work, *self.checks)]


RESOLVE = Stage("resolve", resolve, ResolvedSource)
CAPTURE = Stage("capture", capture, CapturedRanges)
CALIBRATE = Stage("calibrate", calibrate, LatencyRecord)
TRANSFER = Stage("transfer", transfer, Transfer)
CONVERT = Stage("convert", convert, ConvertedModel)
MARK = Stage("mark", mark, ConvertedModel)
VALIDATE = Stage("validate", validate, ExactnessRecord, (require_as_planned,))
TASKS = Stage("tasks", evaluate, TasksRecord)
AUDIT = Stage("audit", audit, AuditRecord)
# A change of code must not ask a person again, so the code of this stage is only the module of its record.
APPROVE = Stage("approve", Approval, Approval)
ASSEMBLE = Stage("assemble", assemble, BundleRecord)
LEAKS = Stage("leaks", require_no_leak, NoLeak)
VERIFY = Stage("verify", verify, Verified)

ELSEWHERE = {"also", "also_pairs", "devices"}
"""Keys of `latency` that name other places to time the chosen plan, and do not affect the choice."""


TIMED_ALONE = {"batch_size", "prompt_tokens", "new_tokens", "pairs", "max_pairs", "tolerance", "warmup", "compiled"}
"""Keys of `latency` that decide how the audit times the slowdown that is left."""


def inputs_of_resolve(config: ReleaseConfig, stages: Path) -> dict[str, Any]:
    """Inputs of resolve, which writes below `stages`. Every file of a local source is read for its hash."""
    return {"source": config.source, "files": stamp(config.source), "place": str(stages)}


def inputs_of_capture(config: ReleaseConfig, source: ResolvedSource, device: torch.device) -> dict[str, Any]:
    """Inputs of capture on `device`."""
    return {
        "source": source,
        "texts": text_hashes(config.calibration.texts),
        "calibration": config.calibration,
        "dtype": config.conversion.dtype,
        "device": processor(device),
    }


def inputs_of_calibrate(
    config: ReleaseConfig, source: ResolvedSource, ranges: CapturedRanges, device: torch.device
) -> dict[str, Any]:
    """Inputs of calibrate on `device`."""
    return {
        "source": source,
        "ranges": ranges,
        "conversion": config.conversion,
        "latency": config.latency.model_dump(mode="json", exclude={*ELSEWHERE, "compiled"}),
        "device": device_description(device),
        "seed": config.seed,
    }


def inputs_of_transfer(
    config: ReleaseConfig,
    source: ResolvedSource,
    ranges: CapturedRanges,
    latency: LatencyRecord,
    devices: Sequence[torch.device],
) -> dict[str, Any]:
    """Inputs of transfer to `devices`, the one of the calibration first: the plan, not how it was found."""
    chosen_by = {"target_slowdown", "tolerance", "max_trials", "columns", "compiled"}
    return {
        "source": source,
        "ranges": ranges,
        "conversion": config.conversion,
        "plan": latency.plan,
        "layers_measured": latency.layers_measured,
        "latency": config.latency.model_dump(mode="json", exclude=chosen_by),
        "devices": [device_description(device) for device in devices],
        "seed": config.seed,
    }


def inputs_of_convert(
    config: ReleaseConfig, source: ResolvedSource, ranges: CapturedRanges, latency: LatencyRecord
) -> dict[str, Any]:
    """Inputs of convert: the plan, not how it was found, and the processor, as each kind may round in its own way."""
    return {
        "source": source,
        "ranges": ranges,
        "plan": latency.plan,
        "conversion": config.conversion,
        "processor": processor(device_named("cpu")),
    }


def inputs_of_mark(
    config: ReleaseConfig, ranges: CapturedRanges, converted: ConvertedModel, copy: Copy
) -> dict[str, Any]:
    """Inputs of mark, which writes `copy`."""
    margin = config.conversion.range_margin
    return {"converted": converted, "ranges": ranges, "range_margin": margin, "copy": copy.identity()}


def inputs_of_validate(
    config: ReleaseConfig,
    source: ResolvedSource,
    ranges: CapturedRanges,
    converted: ConvertedModel,
    copy: Copy | None,
    device: torch.device,
) -> dict[str, Any]:
    """Inputs of validate on `device`."""
    return {
        "source": source,
        "converted": converted,
        "ranges": ranges,
        "range_margin": config.conversion.range_margin,
        "texts": text_hashes((*config.exactness.prompts, *config.exactness.running_text)),
        "exactness": config.exactness.model_dump(mode="json", exclude={"tasks"}),
        "copy": copy and copy.identity(),
        "device": device_description(device),
    }


def inputs_of_tasks(config: ReleaseConfig, source: ResolvedSource, model: Path, device: torch.device) -> dict[str, Any]:
    """Inputs of tasks, which the files in the folder `model` answer on `device`, not how the answers are judged."""
    return {
        "source": source,
        "files": sha256_of_tree(model),
        "dtype": config.conversion.dtype,
        "tasks": [
            [definition_of(task).identity(), task.model_dump(mode="json", include={"limit", "batch_size"})]
            for task in config.exactness.tasks
        ],
        "lm_eval": version("lm_eval"),
        "device": device_description(device),
        "seed": config.seed,
    }


def inputs_of_audit(
    config: ReleaseConfig,
    source: ResolvedSource,
    converted: ConvertedModel,
    exactness: ExactnessRecord,
    copy: Copy | None,
    device: torch.device,
) -> dict[str, Any]:
    """Inputs of audit on `device`. They decide what the attacks find, not how it is judged."""
    texts = texts_read(config.audit, config.exactness)
    return {
        "source": source,
        "converted": converted,
        "continuations": [continuation.identity() for continuation in exactness.continuations],
        "copy": copy and copy.identity(),
        "texts": text_hashes(texts),
        "read": [text.model_dump(mode="json", exclude={"file"}) for text in texts],
        "audit": config.audit.model_dump(mode="json", exclude={"policy", "thresholds"}),
        "latency": config.latency.model_dump(mode="json", include=TIMED_ALONE),
        "device": device_description(device),
        "seed": config.seed,
    }


def inputs_of_approve(
    config: ReleaseConfig,
    findings: Findings,
    document: Mapping[str, Any],
    signer: str | None,
    overridden: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Inputs of approve: everything that the bundle will state, as for assemble."""
    return _stated(config, findings, document, overridden) | {"signer": signer}


def inputs_of_assemble(
    config: ReleaseConfig,
    findings: Findings,
    document: Mapping[str, Any],
    signer: str | None,
    overridden: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Inputs of assemble. `document` and `overridden` are of the config, as the bundle states them."""
    return _stated(config, findings, document, overridden) | {"key": str(signer)}


def _stated(
    config: ReleaseConfig, findings: Findings, document: Mapping[str, Any], overridden: Mapping[str, Any]
) -> dict[str, Any]:
    """What a bundle states. Without overrides, they are no input."""
    files = {name: sha256_of(path) for name, path in card_files(config, findings.source.folder).items()}
    stated = {"findings": findings, "config": document, "template": card_template(config.card), "files": files}
    return stated | ({"overridden": overridden} if overridden else {})


def inputs_of_leaks(
    source: ResolvedSource, converted: ConvertedModel, bundle: BundleRecord, machine: Machine, public: Sequence[str]
) -> dict[str, Any]:
    """Inputs of leaks. `public` are texts that the bundle may contain, whatever they name."""
    return {
        "source": source,
        "converted": converted,
        "bundle": bundle,
        "machine": machine.identity(),
        "public": list(public),
    }


def inputs_of_verify(bundle: BundleRecord, published: Published) -> dict[str, Any]:
    """Inputs of verify, which reads the bundle from where it was published."""
    return {"bundle": bundle, "place": published.path, "commit": published.commit}
