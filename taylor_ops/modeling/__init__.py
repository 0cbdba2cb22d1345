"""The modeling code that ships inside every bundle, and the few lines that tie it to one architecture."""
