"""Networks: architectures, stages, forward hooks, memory saving, and weights from files."""
