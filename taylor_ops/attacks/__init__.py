"""What an attacker can do with a bundle alone. No attack uses the original to recover weights.

collapse         Polynomial collapse: the series of a neuron is its activation times one column, so the dense MLP can be
                 put back.
conditions       The conditions under which an audit measures other models than the bundle.
distillation     Attacks by distillation: train output weights on the outputs of a protected MLP, from random weights or
                 its terms.
fine_tuning      Attacks by fine-tuning on text: train all protected output weights, or low-rank changes of them (LoRA).
intervals        Find the interval of each neuron from its terms alone, to see what hiding centres, and biases in them,
                 would hide.
least_squares    Least squares on (features, output): the output of an MLP is linear in features that everyone can
                 compute.
protected_layer  One protected MLP as an attacker sees it: its terms, its intervals, and its outputs for chosen inputs.
rank_one         Rank-one factorisation across orders: the terms of a neuron are one column of the output weights,
                 rescaled.
ratios           Coefficient ratios: divide each term by its coefficient, which the public phi and the stated interval
                 determine.
record           The record of a training: what an attack that trains for a task did to the loss.
target           A bundle as an attacker sees it: its protected layers, and the dense architecture that it was made
                 from.
training         Train the protected weights of a whole model on a downstream text; all other weights stay as in the
                 bundle.
"""
