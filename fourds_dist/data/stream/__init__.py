"""Batches: order, samples, and the streams that training and evaluation read."""
