"""The release flow: one model and its config, from the source to a verified publication."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.errors_in_logs import without_tracebacks
from flows.stage import alone, open_release
from flows.stages import (
    assemble,
    audit,
    calibrate,
    capture,
    convert,
    publish,
    refuse_leaks,
    report,
    resolve,
    validate,
    verify,
)
from taylor_ops.release_record import ReleaseRecord


def _run_name() -> str:
    return str(flow_run.parameters["config"]).rpartition("/")[2].removesuffix(".yaml")


@flow(name="release", flow_run_name=_run_name)
def release(config: str, overrides: dict[str, str] | None = None, artifacts: str = "artifacts") -> ReleaseRecord:
    """Release the model that a config names.

    config: path of the YAML release config. overrides: dotted config keys and their values, such as
    `latency.target_slowdown: "4"`. artifacts: folder that receives everything that the release writes.
    """
    without_tracebacks()
    run = open_release(config, overrides or {}, artifacts)
    with alone(run):
        source = resolve(run)
        ranges = capture(run, source)
        latency = calibrate(run, source, ranges)
        converted = convert(run, source, ranges, latency)
        exactness = validate(run, source, ranges, converted)
        attacks = audit(run, source, converted)
        bundle = assemble(run, source, latency, converted, exactness, attacks)
        refuse_leaks(run, source, converted, bundle)
        published = publish(run, bundle)
        verified = verify(run, bundle, published)
        return report(run, source, ranges, latency, converted, exactness, attacks, bundle, published, verified)
