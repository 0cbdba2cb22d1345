"""Stage `validate`: tokens against the noise floor, layers against their bounds.

gate        The gate of the stage `validate`: every prompt equal, or no more numerical ties than the noise floor allows.
generation  Greedy continuations in padded batches, with the logits of every step.
layers      Measure each MLP on held-out prompts: activations outside of its captured ranges, and the error of its
            output.
record      What the stage `validate` leaves: the record of the exactness.
tally       Count, position by position, how far two models agree.
validate    Compare the tokens of original and bundle, against the original's own noise floor.
"""
