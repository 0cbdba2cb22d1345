"""The commands `plan`, `doctor` and `init`: what a release takes and needs, before it is run.

first_config   The first config of a model on the Hub, in a folder or in a GGUF file, with a target within reach.
known_source   What is known about a source before it is resolved: what is on disk already, its size, access and
               licence.
lacking        What a release will need after hours of work, or on another machine, and what it seems to lack: warnings
               in words.
preflight      Estimate what a release will take and reach, and reject one that cannot succeed, before hours of work.
probe          A quick probe of a local original: orders and times from a little text and a few decode steps, scaled up.
probed         One thing that the command `doctor` looks at, and how long that may take.
record         The record of what the command `plan` finds.
stage_seconds  Estimated seconds of each stage of a release, based on what the probe timed.
this_machine   What the command `doctor` looks at on this machine and on the Hub: one function for each thing.
"""
