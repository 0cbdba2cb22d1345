"""Stage `mark` and the command `trace`: mark the copy of a recipient, and find whose copy weights stem from.

alignment     Which columns of the original's output weights a suspect's are: order, sign, scale and cuts undone.
further_copy  A further recipient's copy of a bundle: its terms marked, card and manifest renewed, everything else
              as it is.
key           The owner's secret, and what is derived from it: nothing here is ever written down but the name of a
              key.
mark          The stage `mark`: the converted model as one recipient gets it, and how far that may move the output
              of each MLP.
marking       Mark a converted model: terms of a marked weight times 1 plus or minus the strength, by the signs of
              the pattern.
pattern       The pattern of a mark: which output weights carry it, and the sign of each, from key, model, version
              and recipient.
recipients    The file of recipients: who received a copy of which version, one a line.
statistic     What a suspect says of each recipient, and how likely chance says as much of one who has nothing to
              do with it.
suspect       The weights of a suspect: a bundle, a dense model, or any safetensors file with some of its output
              weights.
trace         Trace a suspect: which recipients' marks are in its weights, each with the chance that it is none.
"""
