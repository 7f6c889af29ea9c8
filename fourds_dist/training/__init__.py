"""The training loop of all stages, for one process, torchrun or a Ray worker.

`loop` is the entry; `step` is one forward and backward, `strategies` has optimisers and data parallelism, `distributed`
the collectives, `checkpoint` the checkpoints, `evaluate` the evaluation. `fourds_dist.stages` builds the stages from
the configuration.
"""
