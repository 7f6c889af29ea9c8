"""Comparisons: methods x pairs of domains x seeds x regimes of labels, each cell a run of its own.

    config.py          the file of a comparison
    plan.py            its cells, checked before anything starts
    shared_sources.py  source stages that several cells need
    run_tasks.py       runs what is not done, several at once
    executor.py        what executors do; in_process.py, process_pool.py, ray_tasks.py are the three
    results.py         finished cells, read back
    statistics.py      paired differences and their intervals
    tables.py, plot.py the results as tables and as a plot

`python -m fourds_dist.compare FILE` is the command.
"""
