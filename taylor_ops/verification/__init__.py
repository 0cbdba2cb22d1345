"""Stage `verify`: hashes, signature and tokens of what was published, in a clean process.

clean_process  Run a bundle in a clean process: one that sees only torch, transformers and what they require.
consumer       Load a bundle as a consumer does, with plain transformers on torch; a clean process runs this file by its
               path.
record         What the stage `verify` and the command `calibrate` leave: their records.
remeasure      Measure the slowdown of a bundle again, to check what its manifest states, or on another device.
verify         Verify a published bundle: its signature, its files against the manifest, its tokens against the recorded
               ones.
"""
