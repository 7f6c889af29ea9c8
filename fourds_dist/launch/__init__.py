"""Where a run's workers come from: Ray clusters, or this process and torchrun. Nothing else imports ray."""
