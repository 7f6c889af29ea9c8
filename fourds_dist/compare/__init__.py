"""Comparisons: methods x pairs of domains x seeds x regimes of labels, each cell a run of its own.

    settings.py    the file of a comparison      plan.py        its cells, checked before anything starts
    sources.py     teachers that cells share     work.py        runs what is not done, several at once
    tasks.py       cells as tasks of Ray         processes.py   cells by processes of this machine
    results.py     finished cells, read back     statistics.py  paired differences and their intervals
    tables.py      what they come to             plot.py        the same, drawn

`python -m fourds_dist.compare FILE` is the command.
"""
