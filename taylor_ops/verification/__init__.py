"""Stage `verify`: hashes, signature and tokens of what was published, in a clean process.

clean_process  Run a bundle where nothing but torch and transformers is installed: a process that sees only those
               packages.
consumer       What a consumer of a bundle runs: plain transformers on torch. Started by its path in a clean
               process.
record         What the stage `verify` and the command `calibrate` leave: their records.
remeasure      Measure the slowdown of a bundle again, here: on another device than its own, or to see that it is
               as stated.
verify         Verify a bundle where it lies: its signature, the files of its manifest and no others, the recorded
               tokens.
"""
