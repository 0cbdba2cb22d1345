"""Evidence: a keyed mark on the output weights says who received a copy, also after attacks and further training."""
