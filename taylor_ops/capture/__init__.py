"""Stage `capture`: record the range of every MLP pre-activation, one decoder layer at a time.

capture    Capture the range of every MLP pre-activation over the calibration text.
layerwise  Run an original one decoder layer at a time, reading the weights of that layer only.
record     What the stage `capture` leaves: the record of the captured ranges.
resumable  Work layer by layer that survives a kill: what was found of each layer, and what each batch brings to
           the next.
"""
