"""Measurements on real models. Each prints a table and writes JSON into benchmarks/results; none is a test."""
