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


def run(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"HOME": str(home)}
    environment["XDG_RUNTIME_DIR"] = str(home)
    return subprocess.run(
        [str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_script_tells_its_use(tmp_path: Path) -> None:
    done = run(home=tmp_path)
    assert done.returncode == 2
    assert "worker HEAD_ADDRESS" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_worker_without_a_token_is_told_where_it_belongs(tmp_path: Path) -> None:
    done = run("worker", "10.0.0.1", home=tmp_path)
    assert done.returncode == 1
    assert f"no token in {tmp_path}/.ray/auth_token" in done.stderr
    assert run("worker", home=tmp_path).returncode == 2


def test_stopping_what_never_ran_is_no_error(tmp_path: Path) -> None:
    assert run("stop", home=tmp_path).returncode == 0


def test_shellcheck_agrees() -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck")
    done = subprocess.run([shellcheck, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
