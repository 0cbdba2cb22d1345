"""The stages as Prefect tasks, in the order of the flow.

announcements  What a person sees of a release on the server: artifacts of a finished release, and events for
               automations.
approval       The approval of a release, during which the run is suspended and takes no memory until a person decides.
conversion     The stages convert and mark as Prefect tasks.
lineage        A publication on the Hub as a Prefect asset, with the source model upstream of it.
preparation    The stages resolve and capture as Prefect tasks, and the checks before any long work.
proof          The stages validate, tasks and audit as Prefect tasks.
publication    The stages assemble, leaks, publish and verify as Prefect tasks.
report         The report of a release as a Prefect task.
slowdown       The stages calibrate and transfer as Prefect tasks.
"""
