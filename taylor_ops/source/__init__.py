"""Stage `resolve`: bring the original from the Hub, a folder or a GGUF file, and check it.

files         Which files of a source a release reads.
gguf          GGUF sources: the file or its splits, and their tensors as a folder with safetensors files.
gguf_reading  Parse a GGUF model once, with all its splits, although transformers opens a file for each thing it reads.
hub           Sources on the Hugging Face Hub: what the cache holds, what the Hub says, and what it refuses.
record        The record of a source, which the stage `resolve` leaves.
resolve       Resolve a source, which is a Hub commit, a local folder or a GGUF file, to a checked folder of
              safetensors.
unused        Tensors of a source that the model does not use: refused by name, unless the owner says that they may be
              left out.
"""
