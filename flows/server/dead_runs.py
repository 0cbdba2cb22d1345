"""Server automations that mark a run as crashed when nothing more is heard of its process.

A worker marks a run whose process died. If the worker or the whole machine died too, nobody is left to do so. The run
would stay `Running` for ever, or `Pending` if its process had not begun. A suspended or paused run has said that
nothing will be heard of it, and is left alone.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

from flows.run.pulse import ALIVE, SILENT

NAME = "crashed releases"
SILENCE = timedelta(seconds=90)
NEVER_BEGAN = "releases that never began"
PATIENCE = timedelta(minutes=30)
"""A container may have to fetch its image first."""

_RUNNING = "prefect.flow-run.Running"
_STATES = ("Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused")
_ENDS = (SILENT, *(f"prefect.flow-run.{state}" for state in _STATES))


def automations() -> tuple[AutomationCore, ...]:
    """All automations that a server needs, each with a name of its own."""
    return automation(), never_began()


def automation(silence: timedelta = SILENCE) -> AutomationCore:
    """Mark a release as crashed if it began, then sent nothing for `silence`, and did not end."""
    # `Running` counts too, because a run may die before it says for the first time that it is alive.
    return _crashed(
        NAME, {_RUNNING, ALIVE}, {ALIVE, *_ENDS}, silence, "Mark a release as crashed when its process falls silent"
    )


def never_began(patience: timedelta = PATIENCE) -> AutomationCore:
    """Mark a release as crashed if a worker took it and it neither began nor ended within `patience`."""
    return _crashed(
        NEVER_BEGAN,
        {"prefect.flow-run.Pending"},
        {_RUNNING, ALIVE, *_ENDS},
        patience,
        "Mark a release as crashed when a worker has taken it and its process does not begin",
    )


def same_events(found: AutomationCore, wanted: AutomationCore) -> bool:
    """Whether an automation of the server listens to the events of a wanted one, however patient it is."""
    ours, theirs = wanted.trigger, found.trigger
    assert isinstance(ours, EventTrigger)
    return isinstance(theirs, EventTrigger) and (theirs.after, theirs.expect) == (ours.after, ours.expect)


def _crashed(name: str, after: set[str], expect: set[str], silence: timedelta, description: str) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=description,
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
                message=f"Nothing was heard of this run for {silence.total_seconds():.0f} seconds; finished stages are "
                "kept, `prefect flow-run retry` goes on",
            )
        ],
    )
