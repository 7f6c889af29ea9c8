"""Sweeps: many runs of one configuration with some keys varied, through Ray Tune.

    config.py        the sweep file
    space.py         which keys vary, and how
    plan.py          sweep file and search space, checked together
    search.py        which configuration is tried next
    schedulers.py    which trials stop early
    trial.py         one trial: a run of Ray Train inside a Tune trial
    teacher_pool.py  teachers, each trained once for all trials
    trial_store.py   what is known of every trial, on disk; a sweep resumes from it
    controller.py    which trial starts, stops or is retried
    ray_tune.py      Ray Tune, which runs the trials
    run.py           a sweep from its plan to its report
    live_table.py    the table in the terminal
    results.py       importance of keys, the best configuration
    plots.py, report.py   charts and the page

`python -m fourds_dist.tune SWEEP` is the command. Imports run one way: the runs below know nothing of sweeps.
"""
