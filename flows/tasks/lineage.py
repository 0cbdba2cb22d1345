"""A publication on the Hub as a Prefect asset, with the source model upstream of it."""

from __future__ import annotations

import re

from prefect.assets import Asset, AssetProperties, materialize
from prefect.tasks import MaterializingTask

from taylor_ops.config.release import ReleaseConfig
from taylor_ops.publishing.record import Published
from taylor_ops.source.resolve import origin_of


def note(config: ReleaseConfig, published: Published) -> None:
    """Note that a release was published, as an asset for the repository with its source upstream."""
    publication_of(config, published)(published)


def publication_of(config: ReleaseConfig, published: Published) -> MaterializingTask[[Published], None]:
    """The task that notes a publication."""
    repository = Asset(
        key=f"hf://{published.repo_id}",
        properties=AssetProperties(
            name=published.repo_id, url=published.path, description=f"{config.name}, version {published.version}"
        ),
    )

    @materialize(
        repository,
        by="taylor-release",
        asset_deps=[Asset(key=key_of_source(config))],
        task_run_name="note",
    )
    def publication(published: Published) -> None:
        repository.add_metadata(published.plain())

    return publication


def key_of_source(config: ReleaseConfig) -> str:
    """The key of the source: the address of a repository on the Hub, or the name of a local source without its path."""
    if config.source.kind == "hub":
        return f"hf://{config.source.repo_id}"
    return f"local://{re.sub('[^A-Za-z0-9._-]+', '-', origin_of(config.source))}"
