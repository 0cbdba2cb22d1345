"""Stage `capture`: record the range of every MLP pre-activation, one decoder layer at a time.

capture    Capture the range of every MLP pre-activation over the calibration text.
layerwise  Run an original one decoder layer at a time, with only the weights of that layer in memory.
record     The record of the stage `capture`: where the captured ranges are.
resumable  Resumable layer-by-layer work: the result of each finished layer, and the hidden states that the next one
           needs.
"""
