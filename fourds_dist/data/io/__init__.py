"""Ranged reads of shards, with retries, and their disk cache."""
