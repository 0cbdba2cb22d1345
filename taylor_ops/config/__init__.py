"""Every section of the YAML file, one room each. Pydantic alone, never torch.

audit       The section `audit` of a release config: which attacks run, and whether what they recover stops a release.
card        The section `card` of a release config: what a model card says beside the measurements, and how it is
            written.
conversion  The sections `conversion` and `execution` of a release config.
evidence    The section `evidence` of a release config: whose copy a release is, and the key of the mark that tells so.
exactness   The section `exactness` of a release config.
latency     The section `latency` of a release config: the slowdown that a release promises, and how it is measured.
publish     The sections `publish` and `publish.signing` of a release config.
release     The release config: one frozen model of everything that a YAML file may say, with its defaults and limits.
section     The base class of every config section, and the kinds of values that several sections share.
source      The section `source` of a release config: where the original model comes from.
texts       Where texts and prompts come from, and the section `calibration`: the text over which ranges are captured.
tighter     Which direction is tighter: the keys that guard a release, and what a run may make of each of them.
"""
