"""How figures are worded and plots are drawn, in the same way everywhere.

drawing        How plots are drawn, alike in the report and on the card, with the same bytes for the same figures.
latency_plots  Plots of a calibration: the candidates on the way to the target, and the time per token of both
               models.
templates      The templates that ship with this package, with figures worded alike in all of them.
wording        How figures and texts are worded, alike in the card, the report and the summary.
"""
