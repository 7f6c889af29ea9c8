"""Benchmarks: one command each, one module each. See `python -m fourds_dist.benchmark --help`."""
