"""The training loop and what it stands on; runs in one process, under torchrun, or inside a Ray worker.

`loop` reads top to bottom. Beside it: `world` (ranks and collectives), `optim` (optimisers and schedules), `step`
(one forward and backward), `evaluate`, `checkpoint`, `run_folder`, `tracking`, `progress`; `stages` builds the two
stages from the configuration and runs them.
"""
