"""What a release will need after hours of work, or on another machine, and what it seems to lack: warnings in words."""

from __future__ import annotations

from huggingface_hub import get_token

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config.source import HubSource
from taylor_ops.preflight.known_source import KnownSource


def lacking(config: ReleaseConfig, source: KnownSource) -> tuple[str, ...]:
    """A warning for each: a token to publish with, and terms of the source that a person has to accept."""
    return (*_token(config), *_accepted_terms(config, source))


def _token(config: ReleaseConfig) -> tuple[str, ...]:
    publish = config.publish
    # Whether a Secret block on the Prefect server holds a token is known there alone.
    if publish.target != "hub" or publish.token_secret is not None or get_token() is not None:
        return ()
    return (
        "there is no token for the Hub on this machine, and `publish.target` is `hub`: set HF_TOKEN where the release "
        "runs, log in with `hf auth login`, or name a Prefect Secret block in `publish.token_secret`",
    )


def _accepted_terms(config: ReleaseConfig, source: KnownSource) -> tuple[str, ...]:
    if not source.gated or not isinstance(config.source, HubSource):
        return ()
    return (
        f"the source is gated: the account whose token fetches it has to accept its licence "
        f"({source.licence}) on https://huggingface.co/{config.source.repo_id}",
    )
