"""Stage `assemble`: model, card and manifest as one folder that plain transformers loads.

assemble     Assemble the bundle: the converted model with its card, its attestations and its manifest.
card         The model card of a bundle: metadata and text made from what the release states, and from nothing else.
card_plots   The plots of a card, drawn from what the bundle states and from nothing else.
evaluations  Results of a release in the two forms that the Hub reads: `model-index` of the card, and
             `.eval_results/*.yaml`.
findings     The records of the stages before the bundle, and what manifest and card state of them.
manifest     The manifest of a bundle: its name, what it repeats of the config, and how it is read.
marked_copy  Mark a copy of a bundle for a further recipient: new terms, card, attestations and manifest; all other
             files stay as they are.
record       What the stages `approve` and `assemble` leave: their records.
"""
