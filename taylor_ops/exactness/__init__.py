"""Stage `validate`: tokens against the noise floor, layers against their bounds.

gate        The gate of the stage `validate`: every prompt equal, or no more numerical ties than the noise floor allows.
generation  Greedy continuations in padded batches, and what a model would say at each step of a text that is given.
greedy      What makes a run greedy: the value of every setting of a generation config that could change a token.
layers      Measure each MLP on held-out prompts: activations outside of its captured ranges, and the error of its
            output.
perplexity  The perplexity of two models on running text.
record      What the stage `validate` leaves: the record of the exactness.
tally       Count, position by position, how far two models agree.
validate    Compare the tokens of original and bundle, against the original's own noise floor.
"""
