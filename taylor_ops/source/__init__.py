"""Stage `resolve`: bring the original from the Hub, a folder or a GGUF file, and check it.

card_files    The files that `card.files` adds to a bundle.
files         Which files of a source a release reads.
gguf          GGUF sources: the file or its splits, and their tensors as a folder with safetensors files.
gguf_reading  Parse a GGUF model once, with all its splits, although transformers opens a file for each thing it reads.
hub           Sources on the Hugging Face Hub: what the cache holds, what the Hub says, and what it refuses.
record        The record of a source, which the stage `resolve` leaves.
refused       Refuse a source for what its folder holds: files that name code, and what looks like a file and is none.
resolve       Resolve a source, which is a Hub commit, a local folder or a GGUF file, to a checked folder of
              safetensors.
roles         Which files of a source go along with a release, by their role, and which are left where they are.
unused        Tensors of a source that the model does not use: refused by name, unless the owner says that they may be
              left out.
usable        What goes along with weights is used once by plain transformers: generation config, tokenizer, chat
              templates.
"""
