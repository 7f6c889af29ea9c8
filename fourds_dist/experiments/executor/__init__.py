"""Where runs are executed: one after the other here, in processes of this machine, or as tasks of a Ray cluster.

    base.py          tasks, their results, and what an executor is
    in_process.py    one run after the other in this process
    process_pool.py  processes of this machine, each on one GPU; pool_process.py runs inside of them
    ray_tasks.py     tasks of the Ray cluster that this process has joined
    open.py          the executor that a key `through` names
    run_tasks.py     the loop that starts tasks in order, several at once

Comparisons run their cells here, and sweeps their trials unless Ray Tune runs them. Only `ray_tasks.py` imports Ray.
"""

from typing import Literal

Through = Literal["ray", "processes", "here"]
"""Names of executors, as users write them."""
