"""What an attacker can do with a bundle alone. Nothing here sees the original.

collapse         Polynomial collapse: the series of a neuron is its activation times one column, so the dense MLP
                 can be put back.
conditions       The conditions under which an audit measures other models than the bundle.
distillation     Attacks by distillation: output weights trained on the outputs of a protected MLP, from nothing
                 or from an attack.
fine_tuning      Attacks by fine-tuning on text: all output weights, or low-rank changes of every projection
                 (LoRA).
intervals        Find the interval of each neuron from its terms alone: how much hiding centres, and biases in
                 them, would hide.
least_squares    Least squares on (features, output): the output of an MLP is linear in features that everyone can
                 compute.
protected_layer  One protected MLP as an attacker sees it: its terms, its intervals, and its outputs for inputs of
                 their own.
rank_one         Rank-one factorisation across orders: the terms of a neuron are one column of the output weights,
                 rescaled.
ratios           Coefficient ratios: phi is public, so its coefficients on a stated interval are known, and every
                 term is divided by
record           What an attack recovers of a task: a record.
target           A bundle as an attacker sees it: its protected layers, and the dense architecture that it was
                 made from.
training         Train the withheld weights of a whole model on a downstream text, everything else as the bundle
                 has it.
"""
