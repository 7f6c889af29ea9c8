"""Commands that need no cluster: they run where Ray, DeepSpeed and W&B cannot be imported, and import little."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from fourds_dist.config.loading import to_yaml
from tests.small_network import STAGES

ROOT = Path(__file__).parents[1]
CODE = '''
import json, sys

class Broken:
    """Packages whose import fails, as with a library that does not load."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "deepspeed", "wandb"):
            raise OSError(f"{name}.so: cannot open shared object file")

sys.meta_path.insert(0, Broken())
from fourds_dist.cli.dispatch import main

for words in json.loads(sys.argv[1]):
    status = main(words)
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    print(json.dumps({"status": status, "heavy": heavy}), flush=True)
'''
HEAVY = (
    "torch._dynamo",
    "torch._inductor",
    "torchvision.transforms.v2",
    "matplotlib",
    "pandas",
    "ray",
    "wandb",
)
"""Modules that commands without training, charts and ONNX do not import."""


def test_commands_run_without_ray_deepspeed_and_wandb_and_import_little(
    workplace: Path, tmp_path: Path
) -> None:
    """All in one process; training is last, as it imports PyTorch's compiler."""
    for name in ("ant", "bee"):
        for number in range(12):
            path = tmp_path / "pictures" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number, 200 * (name == "ant"), 9)).save(path)
    network = {"arch": "tests.small_network:small", "stages": list(STAGES)}
    stage = {"epochs": 1, "global_batch_size": 8}
    keys = {"source": {"url": "shards"}, "target": {"url": "shards"}, "teacher": network, "student": network}
    keys |= {"data": {"resize_px": 16, "crop_px": 16}, "source_stage": stage, "distill_stage": stage}
    (tmp_path / "run.yaml").write_text(to_yaml({**keys, "launch": {"runner": "inline"}}))
    run = str(workplace / "runs" / "digits")
    commands = [
        ["pack", "folder", "pictures", "shards"],
        ["predict", run, str(workplace / "seven.png")],
        ["evaluate", run, "--json", "-"],
        ["export", run, "shipped", "--formats", "safetensors"],
        ["doctor"],
        ["train", "run.yaml"],
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(HEAVY)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"status"')]
    assert [result["status"] for result in results] == [0, 0, 0, 0, 1, 0], done.stdout + done.stderr
    assert [result["heavy"] for result in results[:-1]] == [[]] * 5
    for package, otherwise in (
        ("ray", "train in this process with launch.runner=inline"),
        ("deepspeed", "train with launch.strategy=ddp, the default"),
        ("wandb", "set tracking.wandb=disabled"),
    ):
        (line,) = [
            line for line in done.stdout.splitlines() if f"{package} cannot be imported (OSErr" in line
        ]
        assert line.endswith(f", or {otherwise}")
    assert done.stderr.count("W&B tracking is off for the rest of this stage: ") == 2  # one of each stage
    assert (tmp_path / "runs/run/report.html").exists()
