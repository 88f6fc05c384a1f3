"""Studies over finished runs: comparisons of configurations and their figures."""
