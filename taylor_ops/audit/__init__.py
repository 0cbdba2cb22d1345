"""Stage `audit`: run the attacks, score them with the original, and judge.

audit    The audit: published attacks on TaylorMLP releases, run against a bundle before anyone else does.
claims   What a bundle states of its audit: round bounds well above every time measured, equal from run to run.
gate     The gate of an audit: under `audit.policy: block` no release goes out from which an attack gets too much.
rebuilt  Measure a rebuilt model: does it say what the original says, and how fast.
record   What the stage `audit` leaves: what each attack recovers.
run      Run one attack over a bundle, layer by layer, and score what it recovers.
timing   What is left of the slowdown: other models than the bundle, timed in turn with the original.
"""
