"""Sweeps: many runs of one configuration with some keys varied.

    config.py        the sweep file
    space.py         which keys vary, and how
    plan.py          sweep file and search space, checked together
    search.py        the next configuration
    schedulers.py    which trials stop early
    trial_store.py   what is known of every trial, on disk; a sweep resumes from it
    controller.py    which trial starts, stops or is retried
    task_trials.py   trials as tasks of `experiments.executor`, without Ray
    ray_tune.py      trials under Ray Tune
    trial.py         one trial under Ray Tune: the driver of a run of Ray Train
    teacher_pool.py  teachers under Ray Tune, each trained once for all trials
    run.py           a sweep from its plan to its report
    live_table.py    the table in the terminal
    results.py       importance of keys, the best configuration
    plots.py, report.py   charts and the page

`python -m fourds_dist.tune SWEEP` is the command. Imports run one way: the runs below know nothing of sweeps.
"""
