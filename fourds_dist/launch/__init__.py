"""Start of a run's workers: on a Ray cluster, in this process, or under torchrun."""
