"""The parts of a run as types and files: folder layout, events, failures, lease, accuracy and final table.

These modules know no PyTorch, Ray or W&B; all other folders that read or write runs import them.
"""
