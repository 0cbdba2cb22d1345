"""Files that appear whole, records, the cache of finished stages, and the layout of the artifacts folder.

artifacts    The layout of the artifacts folder, whose names only this module spells out, and its locks.
files        Files that appear whole or not at all, and the hashes that identify them.
record       The base of every stage record: small, frozen, and the same thing in JSON.
stage_cache  Reuse of finished stages: a memory file says what a stage was made from, its record and the hashes of its
             files.
"""
