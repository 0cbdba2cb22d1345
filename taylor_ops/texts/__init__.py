"""Texts and prompts, read from files and data sets and checked before long work.

data_sets  Data sets of the Hub and of local folders, read through the library `datasets`.
prompts    Texts and prompts: the project's own and those of the config, as token sequences of one model.
readable   Whether a model has a position for every token that a release runs through it at once.
readers    The records behind a text source, from JSON lines, parquet, a text file or a data set, in the order of
           the config.
"""
