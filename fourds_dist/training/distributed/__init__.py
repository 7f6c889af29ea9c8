"""Ranks, collectives, and sums of gradients in parallel to the backward pass."""
