"""Sweeps: many runs of one configuration with some keys varied, through Ray Tune.

    settings.py   the sweep file            space.py      which keys vary, and how
    plan.py       both, checked together    search.py     which configuration is tried next
    schedulers.py which trials stop early
    trial.py      one trial: a run of Ray Train, launched in a Tune trial
    shared.py     what trials share: teachers, and the wish to end
    ledger.py     what is known of every trial, on disk, from which a sweep goes on
    course.py     what is done next         driver.py     Ray Tune, which does it
    run.py        a sweep from its plan to its report     view.py    what a person sees meanwhile
    results.py    importance, the best configuration      plots.py, report.py   charts and the page

`python -m fourds_dist.tune SWEEP` is the command. Imports run one way: the runs below know nothing of sweeps.
"""
