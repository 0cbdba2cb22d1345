"""Stages `calibrate` and `transfer`: choose the plan that meets the target slowdown, by measuring.

calibrate     Measure the slowdown of decoding and calibrate it.
candidates    Candidates of a calibration in memory, and how many layers of them fit there.
column_cost   What a bundle costs beside its original: slowdowns on a line over columns, from one plan that was timed or
              two.
intervals     Intervals for the centre of paired ratios, also where samples are looked at again and again as they come
              in.
judging       Judge a candidate by paired samples: met, missed, or not yet known.
out_of_reach  What to say where a target slowdown is out of reach, and which settings move the slowdowns that are
              within.
record        What the stages `calibrate` and `transfer` leave: the record of the slowdown.
search        Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it. No clock, no
              model.
timing        Time original and bundle in turn, and time a pair again when other programs used the processor meanwhile.
transfer      Time the chosen plan where its target was not set: at other batch sizes and prompt lengths, on other
              devices.
"""
