"""The automation of the server that marks a run as crashed when its process is heard of no more.

A worker marks a run whose process died. Where the worker, or the whole machine, died with it, nobody is left to do so,
and the run would stay `Running` for ever.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

HEARTBEATS = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
"""Environment in which a run says every 30 seconds that it is there."""

NAME = "crashed releases"
SILENCE = timedelta(seconds=90)


def automation(silence: timedelta = SILENCE) -> AutomationCore:
    """Mark a release as crashed that began, then was not heard of for `silence`, and that came to no end."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Suspended")
    return AutomationCore(
        name=NAME,
        description="Mark a release as crashed when its process is heard of no more",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            # Its first heartbeat comes late: one may die before.
            after={"prefect.flow-run.Running", "prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
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
