"""Ray's launcher files, by Ray's own checks, and the script for bare machines."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

LAUNCHER = Path(__file__).parents[2] / "cluster" / "launcher"
SCRIPT = LAUNCHER / "bare-machines.sh"


@pytest.mark.parametrize("name", ["aws", "on-premises"])
def test_ray_takes_it(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((LAUNCHER / f"{name}.yaml").read_text(encoding="utf-8"))
    validate_config(prepare_config(config))
    assert all("ray stop" in config[f"{part}_start_ray_commands"] for part in ("head", "worker"))
    assert "RAY_AUTH_MODE=token" in str(config["head_start_ray_commands"])
    assert any(place.endswith(".ray/auth_token") for place in config["file_mounts"])


FAKE_RAY = """#!/bin/sh
case "$1" in
get-auth-token) [ -z "$RAY_AUTH_TOKEN_PATH" ] && mkdir -p ~/.ray && echo secret > ~/.ray/auth_token ;;
start) echo "$@" > ~/started; echo "Ray runtime started."; exec sleep 60 ;;
esac
"""


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(home)}
    environment |= {"XDG_RUNTIME_DIR": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}
    return subprocess.run(
        [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_script_tells_its_use(tmp_path: Path) -> None:
    done = run(home=tmp_path)
    assert done.returncode == 2
    assert "worker HEAD_ADDRESS" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_worker_without_a_token_fails_with_the_path_of_the_token(tmp_path: Path) -> None:
    done = run("worker", "10.0.0.1", home=tmp_path)
    assert done.returncode == 1
    assert f"no token in {tmp_path}/.ray/auth_token" in done.stderr
    assert run("worker", home=tmp_path).returncode == 2


def test_head_and_worker_start_and_stop(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ray").write_text(FAKE_RAY, encoding="utf-8")
    (tmp_path / "bin" / "ray").chmod(0o755)
    done = run("head", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bare-machines.sh worker" in done.stdout
    assert "secret" not in done.stdout
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert "--num-cpus 0" in (tmp_path / "started").read_text(encoding="utf-8")
    assert run("stop", home=tmp_path).returncode == 0
    done = run("worker", "10.0.0.1", "--num-cpus", "3", home=tmp_path)
    assert done.returncode == 0, done.stderr
    started = (tmp_path / "started").read_text(encoding="utf-8")
    assert "--address 10.0.0.1:6379" in started
    assert started.endswith("--num-cpus 3\n")
    assert run("stop", home=tmp_path).returncode == 0
    assert not list(tmp_path.glob("*.pid"))


def test_stopping_what_never_ran_is_no_error(tmp_path: Path) -> None:
    assert run("stop", home=tmp_path).returncode == 0


def test_shellcheck_agrees() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck")
    done = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
