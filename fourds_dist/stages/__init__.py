"""The root of the configuration, the stages of a run, and the checks before a run starts."""
