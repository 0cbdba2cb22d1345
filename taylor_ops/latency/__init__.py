"""Stages `calibrate` and `transfer`: choose the plan that meets the target slowdown, by measuring.

bench         The models of a calibration, kept in memory for the transfer of its plan.
calibrate     Measure the slowdown of decoding and calibrate it.
candidates    The candidates of a calibration in memory, and how many of their layers fit there.
column_cost   The slowdown of a bundle as a straight line over its columns, from one timed plan or two.
intervals     Intervals for the centre of paired ratios, valid also if the samples are looked at repeatedly as they come
              in.
judging       Judge a candidate by paired samples: met, missed, at the edge of the band, or too noisy to tell.
loadings      Confirm a candidate in further loadings of the models, which are what its interval counts.
out_of_reach  The error for an unreachable target slowdown, and the settings that would make it reachable.
record        What the stages `calibrate` and `transfer` leave: the record of the slowdown.
search        Choose the plan whose slowdown meets the target, from as few noisy measurements as decide it.
timing        Time original and bundle in turn, and repeat a pair if other programs used the processor meanwhile.
transfer      Time the chosen plan beyond its target: at other batch sizes and prompt lengths, and on other devices.
"""
