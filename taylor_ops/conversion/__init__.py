"""Stage `convert`: put the terms of a series in place of the output weights of every MLP.

convert         Convert a checkpoint: the same model with stacked Taylor terms in place of the MLP output weights.
in_memory       A candidate of the calibration: an original in memory that becomes a bundle without being written.
integrity       Inspect a converted model tensor by tensor: it holds what source and plan give, bit by bit, and nothing
                withheld.
modeling_files  What makes a converted folder loadable: its modeling code, and the config that says how its MLPs are
                laid out.
parts           What a conversion is cut into: parts of a model, each of which any process makes on its own.
record          What the stages `convert` and `mark` leave: the record of a converted model.
terms           The terms: output weights times the coefficients of a series, in place of the output weights.
"""
