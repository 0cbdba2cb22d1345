"""Stage `resolve`: bring the original from the Hub, a folder or a GGUF file, and check it.

files    Which files of a source are read.
gguf     GGUF sources: the file, and its tensors as a folder of safetensors.
hub      Sources on the Hugging Face Hub: what is in the cache, what the Hub says, and what it refuses.
record   What the stage `resolve` leaves: the record of a source.
resolve  Resolve the source of a release: a Hub commit, a local folder or a GGUF file, to a checked folder of
         safetensors.
"""
