"""Stage `verify`: hashes, signature, attestations and tokens of what was published, in a clean process.

apart          Measure a bundle of others again in a process of its own, which has no token, an empty home and no
               network.
clean_process  Run a bundle in a clean process: one that sees only torch, transformers and what they require.
consumer       Load a bundle as a consumer does, with plain transformers on torch; a clean process runs this file by its
               path.
known_code     The code of the versions of this project, by which the code of a bundle of others is told apart from any
               other.
record         What the stage `verify` and the command `calibrate` leave: their records.
remeasure      Measure the slowdown of a bundle again, to check what its manifest states, or on another device.
trust          Whether the code of a bundle may run: that of a known version of this project, and other code if it is
               vouched for.
verify         Verify a published bundle: its signature, its files and attestations against the manifest, its tokens
               against the recorded ones.
"""
