"""The RayJob of overlays/cpu on three hosts: head and two workers, with the token on, shards and run on an S3 server.

    pytest --slow tests/cluster/test_three_hosts.py -s      # as root; prints what a user would read

During training one worker's host is disconnected from the network, or its pod gets the signals of an eviction.
"""

from __future__ import annotations

import copy
import json
import secrets
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cluster.validate.pods import cluster_spec_of
from cluster.validate.render import Object
from tests.cluster.hosts import HOME, ROOT, Host, Network, can_make_hosts
from tests.cluster.pod_commands import environment, start_command, submit_command
from tests.harness import s3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not can_make_hosts(), reason="network namespaces need root and iproute2"),
]

BUCKETS = f"{HOME}/s3"


@dataclass
class Store:
    """An S3 server on a host of its own, and what reaches it."""

    host: Host
    environment: dict[str, str]

    def path(self, url: str) -> Path:
        """Path of an object on the server's disk."""
        return self.host.path(f"{BUCKETS}/{url.removeprefix('s3://')}")


@dataclass
class Cluster:
    """The pods of a RayJob, each on its host."""

    job: Object
    head: Host
    workers: list[Host]
    client: Host
    token: str

    def submit(self, submission_id: str, log: Path) -> subprocess.Popen[bytes]:
        """What the submitter's pod does."""
        return self.ask(submit_command(self.job, self.head.address, submission_id), log)

    def ask(self, command: str, log: Path) -> subprocess.Popen[bytes]:
        """A command where the client is."""
        variables = {
            "RAY_API_SERVER_ADDRESS": f"http://{self.head.address}:8265",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }
        return self.client.start(command, variables, log)


def follow(log: Path, process: subprocess.Popen[bytes], until: str, wait_s: float) -> None:
    """Wait for a piece of text in what a process prints.

    Raises:
        AssertionError: it did not come in time, or the process ended before.
    """
    end = time.monotonic() + wait_s
    while until not in (text := log.read_text(encoding="utf-8")):
        assert process.poll() is None, f"ended without {until!r}:\n{text}"
        assert time.monotonic() < end, f"no {until!r} within {wait_s:.0f} s:\n{text}"
        time.sleep(0.5)


def bring_up(host: Host, command: str, variables: dict[str, str], log: Path, etc: Path) -> None:
    """Start Ray on a host, as the kubelet does: again where it ends, as heads do that need 30 s on a busy machine."""
    for _ in range(3):
        process = host.start(command, variables, log, etc)
        while process.poll() is None:
            time.sleep(5)
            if "Ray runtime started" in log.read_text(encoding="utf-8") and process.poll() is None:
                return
    raise AssertionError(f"Ray does not start on {host.name}:\n{log.read_text(encoding='utf-8')}")


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture
def store(network: Network, tmp_path: Path) -> Store:
    host = network.host("store")
    server = shlex.join(s3.serving(BUCKETS, "0.0.0.0:9000", "/tmp/rclone.conf"))
    host.start(f"mkdir -p {BUCKETS}/fourds; exec {server}", {}, tmp_path / "store.log")
    return Store(host, s3.reaching(f"http://{host.address}:9000") | {"AWS_REGION": "us-east-1"})


@pytest.fixture
def cluster(network: Network, store: Store, rendered: dict[str, list[Object]], tmp_path: Path) -> Cluster:
    job = copy.deepcopy(next(o for o in rendered["cpu"] if o["kind"] == "RayJob"))
    run = next(o["data"]["run.yaml"] for o in rendered["cpu"] if o["kind"] == "ConfigMap")
    settings = yaml.safe_load(run.replace("/data/", "s3://fourds/"))
    settings["run"]["name"] = "three-hosts"
    settings["source_stage"]["epochs"] = 2
    settings["target"] |= {"labels_per_class": 100, "unlabelled": "drop"}  # some minutes on two cores
    settings["launch"]["workers"] = [1, 2]
    etc = tmp_path / "etc"
    (etc / "fourds").mkdir(parents=True)
    (etc / "fourds" / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    token = secrets.token_hex(32)
    spec = cluster_spec_of(job)
    assert spec is not None
    head_group, worker_group = spec["headGroupSpec"], spec["workerGroupSpecs"][0]
    limits = worker_group["template"]["spec"]["containers"][0]["resources"]["limits"]
    limits["cpu"] = "1"  # room for one worker on each host
    head, workers = network.host("head"), [network.host(f"worker-{number}") for number in (1, 2)]
    for host in (head, *workers):
        group = head_group if host is head else worker_group
        log = tmp_path / f"{host.name}.log"
        command = start_command(group, None if host is head else head.address)
        bring_up(host, command, environment(group, token) | store.environment, log, etc)
    return Cluster(job, head, workers, network.host("client"), token)


@pytest.mark.parametrize("way", ["cut off", "evicted"])
def test_a_worker_s_host_goes(way: str, cluster: Cluster, store: Store, tmp_path: Path) -> None:
    log = tmp_path / "submitter.log"
    submitter = cluster.submit("fourds-cpu-7dwzp", log)
    follow(log, submitter, "distillation: epoch 1:", 1200)
    time.sleep(3)
    gone = cluster.workers[1]
    started = time.monotonic()
    print(f"{gone.name} {way} at {time.strftime('%H:%M:%S')}")
    if way == "cut off":
        gone.cut_off()
    else:
        gone.terminate()
        gone.wait(120)
        print(f"the pod was gone after {time.monotonic() - started:.0f} s")
    follow(log, submitter, "on 1 worker after 2", 600)
    print(f"went on after {time.monotonic() - started:.0f} s")
    assert submitter.wait(900) == 0
    text = log.read_text(encoding="utf-8")
    print(text)
    assert "Job 'fourds-cpu-7dwzp' succeeded" in text
    assert store.path("s3://fourds/runs/three-hosts/student.safetensors").exists()


TRAIN = "exec python -m fourds_dist.train /etc/fourds/run.yaml"


def submitted(variable: str, value: str) -> str:
    """The training as a job with an environment variable of its own."""
    return f"ray job submit --runtime-env-json '{json.dumps({'env_vars': {variable: value}})}' -- {TRAIN}"


NOWHERE = "http://203.0.113.1:9000"  # packets to it are dropped, as by a network policy
REFUSED = {
    "no token": ("env -u RAY_AUTH_TOKEN ray job list", "AuthenticationError", 30),
    "another token": (f"RAY_AUTH_TOKEN={'0' * 64} ray job list", "Invalid authentication token", 30),
    "storage denied": (submitted("AWS_SECRET_ACCESS_KEY", "wrong"), "access denied", 60),
    "storage out of reach": (submitted("FSSPEC_S3_ENDPOINT_URL", NOWHERE), NOWHERE, 60),
    "no GPU": (f"ray job submit -- {TRAIN} launch.use_gpu=true launch.wait_s=10", "1 GPU each", 60),
}
"""Commands that fail, their messages, and their time limits in seconds."""


def test_requests_that_cannot_work_fail_within_a_minute(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "client.log"
    ready = cluster.ask("until ray job list; do sleep 1; done", log)
    assert ready.wait(300) == 0
    for name, (command, told, limit_s) in REFUSED.items():
        started = time.monotonic()
        asked = cluster.ask(command, log)
        assert asked.wait(300) == 1, log.read_text(encoding="utf-8")
        took_s = time.monotonic() - started
        text = log.read_text(encoding="utf-8")
        print(f"--- {name}: after {took_s:.0f} s\n{text}")
        assert told in text
        assert took_s < limit_s


COUNT = """python -c 'import ray; ray.init({}); print(len(ray.nodes()), "nodes", ray.cluster_resources()["CPU"])'"""


def test_three_bare_machines_become_a_cluster_with_a_command_each(network: Network, tmp_path: Path) -> None:
    head, *workers, client = (network.host(name) for name in ("head", "worker-1", "worker-2", "client"))
    script = ROOT / "cluster" / "launcher" / "bare-machines.sh"
    log = tmp_path / "head.log"
    running = head.start(f"{script} head; sleep infinity", {}, log)
    follow(log, running, "ray job submit", 180)
    print(log.read_text(encoding="utf-8"))
    token = head.path(f"{HOME}/.ray/auth_token").read_text(encoding="ascii")
    for worker in workers:
        log = tmp_path / f"{worker.name}.log"
        copied = f"mkdir ~/.ray; echo -n {token} > ~/.ray/auth_token"
        running = worker.start(
            f"{copied}; {script} worker {head.address} --num-cpus 2; sleep infinity", {}, log
        )
        follow(log, running, "This machine works for", 180)
    variables = {"RAY_API_SERVER_ADDRESS": f"http://{head.address}:8265", "RAY_AUTH_MODE": "token"}
    notebook = COUNT.format(f'"ray://{head.address}:10001"')
    for command in (f"ray job submit -- {COUNT.format('')}", notebook):
        log = tmp_path / "client.log"
        asked = client.start(command, variables | {"RAY_AUTH_TOKEN": token}, log)
        assert asked.wait(300) == 0, log.read_text(encoding="utf-8")
        assert "3 nodes 4.0" in log.read_text(encoding="utf-8")
