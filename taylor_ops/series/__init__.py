"""The mathematics: activations, expansions, bounds, the fit of a layer, and the plans to choose from.

activations   The MLP activations, each with its value, Taylor coefficients, radius of convergence and asymptotes.
bound         An a-priori bound on the error of one MLP's output: truncation, rounding of the stored terms, captured
              ranges.
expansion     Fit, bound and rewrite the expansion of an activation on each neuron's interval.
fitted_layer  Fit the expansions of one MLP to the share of the bound of the layer that each neuron may take.
ladder        The plans to choose from, from the cheapest to the dearest, and the fitted layers that they rest on.
layout        The layout of one layer: which column of its stacked terms belongs to which neuron and order.
plan          The plan of a release: the rule that gives every neuron its order.
ranges        Captured ranges as data: what a capture stores for each MLP, and how to read and widen it.
"""
