"""Tags by which people find runs and deployments on a server: model, version and target."""

from __future__ import annotations

from prefect import get_client
from prefect.runtime import flow_run

from taylor_ops.config.release import ReleaseConfig


def tags_of(config: ReleaseConfig) -> list[str]:
    """The tags of a release. Its target is where it is published."""
    return [f"model: {config.name}", f"version: {config.version}", f"target: {config.publish.target}"]


def tag_this_run(config: ReleaseConfig) -> None:
    """Tag this run with what it releases. Its deployment may say another version, and tags of other kinds stay."""
    ours = tags_of(config)
    kinds = tuple(f"{tag.partition(':')[0]}: " for tag in ours)
    others = [tag for tag in flow_run.tags if not tag.startswith(kinds)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=[*others, *ours])
