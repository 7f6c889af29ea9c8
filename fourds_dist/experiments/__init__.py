"""Experiments: many runs, as a sweep over values of keys or as a comparison of methods; see README.md."""
