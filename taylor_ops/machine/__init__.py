"""What the machine has: devices and data types, threads, memory, and what its errors mean.

allocator      Make a process keep the memory that it frees for its next step, whatever started the process.
device_errors  Errors of the device that computes: told apart from errors of a model, and explained.
devices        Devices and data types: which one a config means, what it is called, and how much memory it has.
pinned_copies  Copy the blocks that a GPU makes to the host while it makes the next one, by pinned memory and a stream
               of copies.
threads        How many threads torch computes with, if the last bits of a result depend on their number.
usage          What a piece of work costs this process: wall-clock seconds and peak resident memory.
"""
