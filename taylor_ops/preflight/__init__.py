"""The command `plan`: what a release takes and reaches, before it is run.

known_source   What of a source is on this machine before it is resolved, and what is known of all of it: sizes, access,
               licence.
preflight      Say what a release will take and reach before hours of work, and refuse what cannot come off.
probe          A quick probe of an original that is here: orders and times from a little text and a few decode steps,
               scaled up.
record         What the command `plan` finds: its record.
stage_seconds  About how long each stage of a release takes, going by what the probe timed.
"""
