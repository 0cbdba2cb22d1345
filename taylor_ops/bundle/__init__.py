"""Stage `assemble`: model, card and manifest as one folder that plain transformers loads.

assemble     Assemble the bundle: the converted model with its card and its manifest.
card         The model card of a bundle: metadata and text made from what the release states, and from nothing
             else.
card_plots   The plots of a card, drawn from what the bundle states and from nothing else.
findings     What the stages have found so far, and what manifest and card state of it.
manifest     The manifest of a bundle: its name, what it repeats of the config, and how it is read.
marked_copy  A further recipient's copy of a bundle: its terms marked, card and manifest renewed, everything else
             as it is.
record       What the stages `approve` and `assemble` leave: their records.
"""
