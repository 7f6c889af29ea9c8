"""Where a run's workers come from: Ray clusters, or this process and torchrun. Only sweeps import ray besides."""
