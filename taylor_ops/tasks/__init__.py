"""Stage `tasks`: original and bundle answer tasks of the evaluation harness lm-eval.

definition  Read what defines a task of lm-eval, and refuse whatever in it would run code.
evaluate    Have original and bundle answer tasks of lm-eval, and put their scores side by side.
gate        The gate of the stage `tasks`: the scores of original and bundle differ by no more than the config allows.
prepare     Bring the data set of a task to this machine, and hold lm-eval to what a task may do.
record      What the stage `tasks` leaves: the scores of original and bundle.
"""
