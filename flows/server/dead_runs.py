"""Server automations that mark a run as crashed when its process sends no more heartbeats.

A worker marks a run whose process died. If the worker or the whole machine died too, nobody is left to do so. The run
would stay `Running` for ever, or `Pending` if its process had not begun.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
"""Environment in which a run sends a heartbeat every 30 seconds."""

NAME = "crashed releases"
SILENCE = timedelta(seconds=90)
NEVER_BEGAN = "releases that never began"
PATIENCE = timedelta(minutes=30)
"""A container may have to fetch its image first."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_RUNNING = "prefect.flow-run.Running"
_ENDS = tuple(f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Cancelled", "Crashed", "Suspended"))


def automations() -> tuple[AutomationCore, ...]:
    """All automations that a server needs, each with a name of its own."""
    return automation(), never_began()


def automation(silence: timedelta = SILENCE) -> AutomationCore:
    """Mark a release as crashed if it began, then sent nothing for `silence`, and did not end."""
    # `Running` counts too, because a run may die before its first heartbeat.
    return _crashed(NAME, {_RUNNING, _HEARTBEAT}, {_HEARTBEAT, *_ENDS}, silence)


def never_began(patience: timedelta = PATIENCE) -> AutomationCore:
    """Mark a release as crashed if a worker took it and it neither began nor ended within `patience`."""
    return _crashed(NEVER_BEGAN, {"prefect.flow-run.Pending"}, {_RUNNING, _HEARTBEAT, *_ENDS}, patience)


def _crashed(name: str, after: set[str], expect: set[str], silence: timedelta) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Mark a release as crashed when its process is heard of no more",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            after=after,
            expect=expect,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": "release"},
            for_each={"prefect.resource.id"},
            threshold=1,
            within=silence,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                force=False,
                message=f"Nothing was heard of this run for {silence.total_seconds():.0f} seconds",
            )
        ],
    )
