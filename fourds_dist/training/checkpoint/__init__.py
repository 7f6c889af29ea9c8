"""Checkpoints: format and storage."""
