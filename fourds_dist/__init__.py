"""fourds_dist: Direct Distillation between Different Domains (4Ds, arXiv 2401.06826) on clusters."""

__version__ = "0.1.0"
