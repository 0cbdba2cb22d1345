"""Texts and prompts, read from files and data sets, and checked before long work.

chats      A chat as the text that the model's own chat template makes of it.
data_sets  Data sets on the Hub and in local folders, read through the library `datasets`.
prompts    Texts and prompts of the project and of the config, as token sequences of one model.
readable   Whether a model has a position for every token that a release runs through it at once.
readers    The records of a text source, from JSON lines, parquet, a text file or a data set, in the order of the
           config.
"""
