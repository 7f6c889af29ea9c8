"""Checks of manifests before a cluster sees them: `python -m cluster.validate --help`, from the root of a clone."""
