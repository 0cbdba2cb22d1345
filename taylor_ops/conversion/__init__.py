"""Stage `convert`: replace the output weights of every MLP by the terms of a series.

convert         Convert a checkpoint: the same model with stacked Taylor terms in place of the MLP output weights.
in_memory       Make a candidate of the calibration: turn an original in memory into a bundle, without writing it.
integrity       Inspect a converted model: bit by bit it holds what source and plan give, and no protected output
                weights.
modeling_files  The files that make a converted folder loadable: the modeling code, and the config with the layout of
                its MLPs.
parts           The parts into which a conversion is cut. Any process can make each of them on its own.
record          What the stages `convert` and `mark` leave: the record of a converted model.
terms           The terms: output weights times the coefficients of a series, in place of the output weights.
"""
