"""`fourds doctor`: what is found, and that a fault decides the exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli import checks
from fourds_dist.cli.checks import Level
from fourds_dist.cli.doctor import main
from tests.data.shards import write_dataset


def test_a_sound_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = write_dataset(tmp_path / "set", [5])
    assert main(["--quick", url]) == 0
    out = capsys.readouterr().out
    assert "ready to train" in out
    assert "a dataset folder of 3 classes, 5 train, 5 val, 5 test images" in out
    assert not list((tmp_path / "set").glob(".fourds*"))


def test_storage_that_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["--quick", str(tmp_path / "file" / "runs")]) == 1
    assert "FAIL" in capsys.readouterr().out
    (finding,) = checks.storage("nosuch://bucket")
    assert finding.level is Level.BAD


def test_a_ray_that_does_not_start_is_an_error_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from fourds_dist.launch.ray.train import LaunchError, run_on_ray
    from fourds_dist.stages.settings import Settings

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\n  This could happen ...")  # noqa: TRY002  (as Ray does)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    (finding,) = checks.ray_starts()
    assert finding.level is Level.BAD
    assert "RAY_ADDRESS=local" in (finding.fix or "")
    settings = Settings.model_validate(
        {"target": {"url": "x"}, "source": {"url": "y"}, "run": {"dir": str(tmp_path)}}
    )
    with pytest.raises(LaunchError, match=r"timed out during startup. This could happen ....*fourds doctor"):
        run_on_ray(settings)
