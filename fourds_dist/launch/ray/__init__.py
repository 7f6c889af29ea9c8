"""Stages of a run as Ray Train runs."""
