"""Stage `leaks`: refuse a bundle that gives away protected weights or this machine.

record   What the stage `leaks` leaves: the record that no leak was found.
refuse   The leak gate: only the files of the manifest leave this machine, with no protected weight and no secret in
         them.
sources  The files of a source that go along as they are, looked through for what the leak gate would refuse at the end.
telling  Which rows and columns of a matrix tell it apart: not those that are zero, constant, nearly so, or repeated.
texts    What the texts of a bundle must not reveal about the machine that made it: paths, names, addresses and secrets.
weights  Find protected weights in tensors of a bundle, in any order of rows and columns, scale, sign and data type.
"""
