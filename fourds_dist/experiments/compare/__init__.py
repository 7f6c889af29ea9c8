"""Comparisons: methods x pairs of domains x seeds x regimes of labels, each cell a run of its own.

    config.py          the file of a comparison
    plan.py            its cells, checked before anything starts
    pending.py         the cells that have to run, as tasks of `experiments.executor`
    early_stopping.py  which cells stop early
    results.py         finished cells, read back
    statistics.py      paired differences and their intervals
    tables.py, plot.py the results as tables and as a plot

`python -m fourds_dist.compare FILE` is the command.
"""
