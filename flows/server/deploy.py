"""Set up what a Prefect server lacks for releases: work pool, limit, automations, a deployment for each config."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.runner.storage import LocalStorage

from flows.parameters import release_form
from flows.run.gpu import LIMIT
from flows.run.tags import tags_of
from flows.server import dead_runs
from flows.server.connection import server_asked
from taylor_ops.config.release import ReleaseConfig
from taylor_ops.config_file.read import ConfigErrors, read
from taylor_ops.errors import BadInput

ENTRYPOINT = "flows/release.py:release"


def deploy(
    configs: Sequence[Path], pool: str, gpu_slots: int, folder: str | None = None, image: str | None = None
) -> list[str]:
    """Create what is missing and update deployments. An existing pool, limit or automation keeps its settings.

    An automation of an earlier version, which listens to other events, is replaced.

    Args:
        configs: The release configs.
        pool: Name of the work pool.
        gpu_slots: How many stages may use a GPU at once.
        folder: Folder in which workers find code and configs, if not the current one.
        image: Image for a pool that starts containers.

    Returns:
        A line for each thing that was created, updated or found.

    Raises:
        ConfigErrors: With every mistake in every config, before anything is created.
        BadInput: If no server answers.
    """
    read_configs = _read(configs)
    code = Path(ENTRYPOINT.partition(":")[0])
    if folder is None and not code.is_file():
        raise BadInput(
            f"{code} is not in the current folder, from which workers would take the code",
            "run the command in a checkout, or give the folder of a checkout on the workers as --folder",
        )
    with server_asked(), get_client(sync_client=True) as client:
        done = [_work_pool(client, pool), _limit(client, gpu_slots)]
        done += [_automation(client, wanted) for wanted in dead_runs.automations()]
        # Importing the flow itself would load torch and transformers, only to get its parameters.
        form = Flow(release_form, name="release", version=version("taylor-release"))
        for path, config in read_configs.items():
            description = f"{config.name} {config.version}, of {config.card.base_model or config.source.kind}"
            made = RunnerDeployment.from_flow(
                form,
                name=path.stem,
                parameters={"config": path.as_posix()},
                description=description,
                tags=tags_of(config),
                work_pool_name=pool,
                job_variables={"image": image} if image else {},
            )
            made.entrypoint = ENTRYPOINT
            made.storage = LocalStorage(folder or str(Path.cwd()))
            made.apply(work_pool_name=pool)
            done.append(f"deployment release/{path.stem}: {description}")
    return done


def _work_pool(client: SyncPrefectClient, pool: str) -> str:
    try:
        return f"work pool {pool}: there, of type {client.read_work_pool(pool).type}"
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        return f"work pool {pool}: made, of type process"


def _limit(client: SyncPrefectClient, gpu_slots: int) -> str:
    try:
        limit = client.read_global_concurrency_limit_by_name(LIMIT)
        return f"concurrency limit {LIMIT}: there, {limit.limit} at once"
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=gpu_slots))
        return f"concurrency limit {LIMIT}: made, {gpu_slots} at once"


def _automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    for found in client.read_automations_by_name(wanted.name):
        if dead_runs.same_events(found, wanted):
            return f"automation {wanted.name}: there"
        # An earlier version listened to other events, of which the runs of this one send none.
        client.update_automation(found.id, wanted)
        return f"automation {wanted.name}: made anew"
    client.create_automation(wanted)
    return f"automation {wanted.name}: made"


def _read(configs: Sequence[Path]) -> dict[Path, ReleaseConfig]:
    found: dict[Path, ReleaseConfig] = {}
    lines: list[str] = []
    for path in configs:
        try:
            found[path] = read(path).config
        except ConfigErrors as error:
            lines.extend(error.lines)
    if lines:
        raise ConfigErrors(lines)
    return found
