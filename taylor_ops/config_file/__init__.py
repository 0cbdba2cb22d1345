"""Reading a YAML file: lines, messages, overrides, schema, reference, and which configs a commit changed.

changed     Which release configs a merge or a push changed, and what each of them would release.
checked     What the command `check` says of one config: its mistakes, and what it names that is not on this machine.
explain     Validation errors in words: what is wrong, at which line, and what to write instead.
extends     The file that a config extends: its keys stand in for those that the config does not have itself.
file_text   The text of a config file, or why it cannot be read.
initial     The first config of a model as commented YAML, from what is known of its source.
overrides   What a run has in place of what its file says: put into the config, judged by which direction is tighter,
            and told.
read        Reads a YAML release config with its overrides, or reports everything that is wrong with it, with lines.
reference   Writes the reference of the release config in Markdown from its schema: every section and key, with limits.
schema      The JSON Schema of a release config, and the values that it allows at each place.
yaml_lines  Reads YAML text into plain values that know the line of their key, and reports every mistake in its
            structure.
"""
