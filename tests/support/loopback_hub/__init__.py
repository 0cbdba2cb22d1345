"""A stand-in for the Hugging Face Hub, on loopback: what the real client asks of it, with faults to order."""
