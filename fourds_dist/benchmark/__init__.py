"""Benchmarks, one module each; `python -m fourds_dist.benchmark --help` lists them."""
