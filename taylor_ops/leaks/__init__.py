"""Stage `leaks`: refuse a bundle that gives away protected weights or this machine.

record   What the stage `leaks` leaves: the record that no leak was found.
refuse   The leak gate: what leaves this machine is the bundle of its manifest, and says nothing that was to be
         withheld.
texts    What a bundle must not say of the machine that made it: places, names, addresses and secrets in its
         texts.
weights  Withheld weights in tensors of a bundle: found in any order of rows and columns, scale, sign and data
         type.
"""
