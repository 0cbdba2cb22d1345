"""Stage `audit`: run the attacks, score them with the original, and judge.

audit    The audit: run published attacks on TaylorMLP releases against a bundle before anyone else does.
claims   What a bundle states of its audit: round bounds well above every measured time, the same in every run.
gate     The gate of the audit: `audit.policy: block` stops a release if an attack recovers too much of it.
rebuilt  Rebuild a model from what an attack found: whether it gives the tokens of the original, and how fast it is.
record   The record of the stage `audit`: what each attack recovers.
run      Run attacks over a bundle, layer by layer, and score what they recover.
timing   Time what is left of the slowdown: a rebuilt model, or a compiled bundle, in turn with the original.
"""
