"""Sinks of a stage's events."""
