"""How figures are worded and plots are drawn, in the same way everywhere.

drawing        How plots are drawn, in one style for the report and the card, with the same bytes for the same figures.
latency_plots  Plots of a calibration: its trials on the way to the target, and the time per token of both models.
overridden     How it is told what a run had in place of what its file says, alike in previews, approvals and cards.
sentences      How results are told in sentences that stand alone, alike on the card, in gates and in the report.
templates      The templates that ship with this package, with figures worded alike in all of them.
version_plots  Plots across the versions of one release: slowdown, exactness and size, with the newest on the right.
wording        How figures and texts are worded, in the same way on the card, in the report and in the summary.
"""
