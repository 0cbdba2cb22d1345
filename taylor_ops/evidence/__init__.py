"""Stage `mark` and the command `trace`: mark the copy of a recipient, and find whose copy weights stem from.

alignment   Find which columns of the original's output weights a suspect has, in any order, sign and scale, whole or
            cut.
key         The owner's secret, and what is derived from it. Only the name of a key is ever written down.
mark        The stage `mark`: write one recipient's copy of a converted model, and bound how far marks move each MLP's
            output.
marking     Mark a converted model: multiply the terms of marked weights by 1 plus or minus the strength, as the pattern
            says.
pattern     The pattern of a mark: which output weights carry it, and the sign of each, from key, model, version and
            recipient.
recipients  The file of recipients: who received a copy of which version, one on each line.
record      The record of the command `trace`: whose marks were found in a suspect, and what that rests on.
statistic   How strongly a suspect points to each recipient, and how likely chance does so for an uninvolved recipient.
suspect     The weights of a suspect: a bundle, a dense model, or any safetensors file with some of its output weights.
trace       Trace a suspect: find the recipients whose marks are in its weights, each with a p-value.
"""
