"""What KubeRay's operator makes of a RayJob: the commands and the environment of its pods.

From ray-operator/controllers/ray/common/{pod,job}.go of KubeRay 1.7, for the fields that cluster/ uses.
"""

from __future__ import annotations

from cluster.validate.render import Object

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def start_command(group: Object, head_address: str | None = None) -> str:
    """`ray start` of a head, or of a worker that joins `head_address`."""
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    own = {"address": f"{head_address}:6379"} if head_address else {"dashboard-host": "0.0.0.0"}
    parameters = {
        **own,
        "metrics-export-port": "8080",
        "dashboard-agent-listen-port": "52365",
        "num-cpus": limits["cpu"],
        "memory": str(int(limits["memory"][:-2]) * UNITS[limits["memory"][-2:]]),
        **group.get("rayStartParams", {}),
    }
    options = " ".join(f"--{key}={value}" for key, value in sorted(parameters.items()))
    start = f"ulimit -n 65536; ray start {'' if head_address else '--head '}--block {options}"
    if head_address is None:
        return start
    waiting = f"until ray health-check --address {head_address}:6379 >/dev/null 2>&1; do sleep 2; done"
    return f"{waiting}; {start}"


def submit_command(job: Object, head_address: str, submission_id: str) -> str:
    """The submitter's: wait for the head, submit once, follow the log."""
    address = f"http://{head_address}:8265"
    healthy = (
        "python3 -c \"import urllib.request; urllib.request.urlopen('"
        f"{address}/api/gcs_healthz', timeout=5)\" >/dev/null 2>&1"
    )
    return (
        f"set -e; until {healthy}; do sleep 2; done; "
        f"if ! ray job status --address {address} {submission_id} >/dev/null 2>&1; then "
        f"ray job submit --address {address} --no-wait --submission-id {submission_id} -- {job['spec']['entrypoint']}; "
        f"fi; ray job logs --address {address} --follow {submission_id}"
    )


def environment(group: Object, token: str) -> dict[str, str]:
    """A container's variables: its manifest's, and the token's."""
    written = {
        entry["name"]: entry["value"] for entry in group["template"]["spec"]["containers"][0].get("env", [])
    }
    return written | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
