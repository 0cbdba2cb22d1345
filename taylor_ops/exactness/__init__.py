"""Stage `validate`: tokens against the noise floor, layers against their bounds.

gate        The gate of the stage `validate`: every prompt equal, or no more numerical ties than the noise floor allows.
generation  Greedy continuations in padded batches, with the logits of every step.
layers      What held-out prompts show of each MLP: activations that leave its captured ranges, and the error of its
            output.
record      What the stage `validate` leaves: the record of the exactness.
tally       Count, position by position, how far two models agree.
validate    Exactness: do the original and the bundle say the same tokens, judged against the original's own noise
            floor.
"""
