"""Hosts on one machine: network namespaces on a bridge, with addresses of their own, for what crosses a network.

What starts on a host finds what a pod of cluster/ finds: no rights, a root that it cannot write, /tmp, /dev/shm and
a home of its own, process number 1. Resources are not limited. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

USER_ID = 10001
HOME = "/home/fourds"
ROOT = Path(__file__).parents[2]


def can_make_hosts() -> bool:
    """Whether this process may make namespaces, and has the tools for it."""
    return os.geteuid() == 0 and all(map(shutil.which, ("ip", "unshare", "setpriv")))


class Network:
    """A bridge; its hosts, and everything on them, end with the context."""

    def __init__(self) -> None:
        self.name = f"fourds{os.getpid() % 100_000}"
        self.subnet = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 250}"
        self.hosts: list[Host] = []

    def __enter__(self) -> Network:
        _ip(f"link add {self.name} type bridge")
        _ip(f"addr add {self.subnet}.1/24 dev {self.name}")
        _ip(f"link set {self.name} up")
        return self

    def host(self, name: str) -> Host:
        """Another host, reached by all of them under its address."""
        self.hosts.append(Host(self, name, len(self.hosts) + 2))
        return self.hosts[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in self.hosts:
            host.end()
        _ip(f"link del {self.name}")


class Host:
    """One host; `files` are what it finds under /etc."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, f"{network.subnet}.{number}"
        self._space, self._link = f"{network.name}-{number}", f"{network.name}.{number}"
        self._processes: list[subprocess.Popen[bytes]] = []
        _ip(f"netns add {self._space}")
        _ip(f"link add {self._link} type veth peer name eth0 netns {self._space}")
        _ip(f"link set {self._link} master {network.name} up")
        _ip(f"-n {self._space} addr add {self.address}/24 dev eth0")
        _ip(f"-n {self._space} link set lo up")
        _ip(f"-n {self._space} link set eth0 up")
        _ip(f"-n {self._space} route add default via {network.subnet}.1")

    def start(
        self, command: str, environment: dict[str, str], log: Path, etc: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a shell command as in a pod.

        Args:
            environment: variables in addition to those that every process needs.
            log: file for the output, overwritten.
            etc: folder mounted over /etc, with the host's name and address, as in a pod.
        """
        pod = {
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **environment,
        }
        rights = (
            f"setpriv --reuid={USER_ID} --regid={USER_ID} --clear-groups --no-new-privs --inh-caps=-all "
            "--bounding-set=-all"
        )
        lower = ["/mnt/etc", *([str(etc)] if etc else []), "/etc"]
        script = "\n".join(
            [
                "set -e",
                f"hostname {self.name}",
                "mount -t tmpfs tmpfs /mnt",
                "mkdir /mnt/etc",
                f"echo '127.0.0.1 localhost\n{self.address} {self.name}' > /mnt/etc/hosts",
                f"mount -t overlay overlay -o lowerdir={':'.join(lower)} /etc",
                *_own_folders([Path(sys.base_prefix), Path(sys.prefix), ROOT]),
                f"mkdir -m 777 {HOME}",
                "mount -o remount,bind,ro /",
                f"cd {HOME}",
                f"exec {rights} env -i {shlex.join(f'{k}={v}' for k, v in pod.items())} "
                f"/bin/bash -c {shlex.quote(command)}",
            ]
        )
        spaces = "unshare --mount --uts --pid --fork --mount-proc"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._space, *spaces.split(), "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def path(self, path: str) -> Path:
        """Path, outside the host, of the file that the first process of the host sees as `path`."""
        (first,) = _children(self._processes[0].pid)
        return Path(f"/proc/{first}/root{path}")

    def terminate(self) -> None:
        """SIGTERM to everything that runs here, as the kubelet sends it."""
        self._signal(signal.SIGTERM)

    def wait(self, limit_s: float) -> None:
        """Wait until everything here has ended."""
        for process in self._processes:
            process.wait(limit_s)

    def cut_off(self) -> None:
        """Disconnect the host from the network without a notice to its processes."""
        _ip(f"link set {self._link} down")

    def end(self) -> None:
        """End everything here, and the host."""
        self._signal(signal.SIGKILL)
        self.wait(30)
        _ip(f"netns del {self._space}")

    def _signal(self, number: int) -> None:
        """To the first process of each process space, with which all others of it end."""
        for process in self._processes:
            if process.poll() is None:
                for child in _children(process.pid):
                    os.kill(child, number)


def _children(pid: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    ]


def _own_folders(shown: list[Path]) -> list[str]:
    """Commands that lay empty folders over those that pods have of their own, with only `shown` of this machine's.

    A folder that its owner alone may enter, as /root, counts among them where something below it is to be shown.
    """
    own = {Path(place): 1777 for place in ("/dev/shm", "/home", "/tmp")}
    closed = [parent for path in shown for parent in path.parents if not parent.stat().st_mode & 0o001]
    own |= dict.fromkeys(set(closed) - {p for c in closed for p in closed if c in p.parents}, 755)
    kept = [path for path in shown if any(place in path.parents for place in own)]
    return [
        *(f"mkdir /mnt/{number}; mount --bind {path} /mnt/{number}" for number, path in enumerate(kept)),
        *(f"mount -t tmpfs -o mode={mode} tmpfs {place}" for place, mode in own.items()),
        *(f"mkdir -p {path}; mount --bind /mnt/{number} {path}" for number, path in enumerate(kept)),
    ]


def _ip(arguments: str) -> None:
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {arguments}: {done.stderr.strip()}")
