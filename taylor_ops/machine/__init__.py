"""What the machine has: devices and data types, threads, memory, and what its errors mean.

allocator      Have a process keep memory that it frees for its next step, whoever started it.
device_errors  Errors of the device that computes: told from those of a model, and explained.
devices        Devices and data types: which one a config means, what it is called, and how much room it has.
pinned_copies  Blocks that a GPU makes, brought to the host while it makes the next: pinned memory, a stream for
               the copies.
threads        How many threads torch computes with where the last bits of a result would depend on it.
usage          What a piece of work costs this process: wall-clock seconds and peak resident memory.
"""
