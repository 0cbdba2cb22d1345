"""What `benchmarks.chaos` injects, and how each answer is judged."""
