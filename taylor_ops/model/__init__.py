"""The original model: its architecture, shapes, tensors and files, and how models are loaded.

architectures  Where the MLPs of each architecture are and which of their tensors play which role.
checkpoint     Safetensors checkpoints, read one tensor at a time.
config_errors  What is wrong with the `config.json` of a model, in one line with the file and the key.
loading        Load the models that a release compares: the original and a bundle, on one device in one dtype.
mlp_hooks      Watch the MLPs of a running model: their inputs, pre-activations, factors and outputs.
original       The original model on disk, by the names of its modules: its MLPs, their weights, and all other tensors.
row_blocks     Tensors that are made a few rows at a time when they are written or compared, and are never whole in
               memory.
shape          What the config of a model says without its weights: shapes of tensors, layers, positions.
shards         Write tensors into safetensors files of limited size, a block at a time.
stored_names   Under which names a checkpoint stores the tensors of a model, and what it may store beside them.
weight_files   Which files of a model folder hold its weights: those that transformers loads, or a refusal by name.
"""
