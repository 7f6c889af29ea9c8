"""Advice before a long training: which method, which accuracy, which cost; see README.md."""
