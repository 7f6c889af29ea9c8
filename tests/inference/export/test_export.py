"""Exports: written files give the student's outputs, and files that differ are refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from fourds_dist.cli.export import main
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.export import formats
from fourds_dist.inference.export.export import export
from fourds_dist.inference.export.model_card import build_code
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import Student, description
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from tests.finished_run import one_of_each

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

WITHOUT_US = "import sys\nsys.modules['fourds_dist'] = None\n"


@pytest.fixture(scope="module")
def builtin_config(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("builtin_config")
    given = [
        str(workplace / "runs" / "digits"),
        str(folder),
        "--formats",
        "safetensors,torch-export,onnx,int8",
    ]
    assert main([*given, "--max-loss", "0.05"]) == 0
    return folder


@pytest.mark.parametrize("file", ["student.safetensors", "student.pt2", "student.onnx"])
@pytest.mark.parametrize("num", [1, 5])
def test_the_same_outputs_at_any_batch_size(
    builtin_config: Path, workplace: Path, file: str, num: int
) -> None:
    student, again = load_student(workplace / "runs" / "digits"), load_student(builtin_config / file)
    pixels = torch.randint(
        0, 256, (num, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(num)
    )
    torch.testing.assert_close(again.run(pixels), student.run(pixels), rtol=1e-4, atol=1e-4)
    assert (again.classes, again.preprocessing) == (student.classes, student.preprocessing)


def test_int8_is_small_and_agrees_mostly(builtin_config: Path, workplace: Path) -> None:
    size = {path.name: path.stat().st_size for path in builtin_config.iterdir()}
    assert size["student.int8.onnx"] < 0.4 * size["student.onnx"]
    student, again = (
        load_student(workplace / "runs" / "digits"),
        load_student(builtin_config / "student.int8.onnx"),
    )
    files = [workplace / "seven.png"]
    assert student.predict(files)[0].label == again.predict(files)[0].label


@pytest.mark.parametrize("heading", ["With ONNX Runtime", "With PyTorch alone", "The weights"])
def test_the_card_s_code_runs_without_us(
    builtin_config: Path, workplace: Path, tmp_path: Path, heading: str
) -> None:
    card = (builtin_config / "README.md").read_text()
    prepare = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    code = re.search(rf"## {heading}.*?```python\n(.*?)```", card, re.DOTALL)
    assert prepare is not None
    assert code is not None
    program = WITHOUT_US + prepare[1] + code[1]
    if heading == "The weights":
        use = re.search(r"# (logits = .*)", code[1])
        assert use is not None
        program += f"path = sys.argv[1]\n{use[1]}\nprint(path, int(logits.argmax()))\n".replace(
            "logits.arg", "logits[0].arg"
        )
        program = program.replace("path = sys.argv[1]\n", "for path in sys.argv[1:]:\n    ").replace(
            "\nprint(", "\n    print("
        )
    files = []
    for label, data in one_of_each(workplace / "shards" / "digits-photos").items():
        files.append(tmp_path / f"{label}.png")
        files[-1].write_bytes(data)
    ours = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }  # the network's own package, for its weights
    done = subprocess.run(
        [sys.executable, "-c", program, *files],
        cwd=builtin_config,
        env=ours,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    expected = {p.file: p.label for p in load_student(workplace / "runs" / "digits").predict(files)}
    assert len(answers) == len(files)
    assert answers == expected


@pytest.mark.parametrize(
    ("arch", "stem"), [("resnet10", "small"), ("resnet18", "small"), ("mobilenet_v2", "imagenet")]
)
def test_the_card_s_network_equals_the_backbone(arch: str, stem: str) -> None:
    config = BackboneConfig.model_validate({"arch": arch, "stem": stem})
    preprocessing = Preprocessing(36, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    about = description(config, ("a", "b"), preprocessing, {})
    student = Student("", ("a", "b"), preprocessing, lambda pixels: pixels, None, about)
    names = {"torch": torch, "torchvision": torchvision}
    exec(build_code(student), names)
    made, ours = names["network"].state_dict(), build_backbone(config, 2, 32).state_dict()
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in ours.items()}


def test_a_file_with_other_outputs_is_refused_and_not_written(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = formats.DeployableNetwork.forward
    monkeypatch.setattr(formats.DeployableNetwork, "forward", lambda self, images: right(self, images * 0.9))
    given = [
        str(workplace / "runs" / "digits"),
        str(tmp_path / "out"),
        "--formats",
        "torch-export,safetensors",
    ]
    assert main(given) == 1
    assert "torch-export is refused and not written: its outputs differ" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"student.safetensors", "README.md"}


def test_int8_that_loses_too_much_is_refused(workplace: Path, tmp_path: Path) -> None:
    student, out = load_student(str(workplace / "runs" / "digits")), tmp_path / "out"
    done, refused = export(student, str(out), ["int8"], most_loss=-1.0)
    assert done == []
    assert re.match(r"it loses -?\d+\.\d points", refused["int8"])
    assert not out.exists()


def test_unknown_formats_and_programs_are_refused(
    builtin_config: Path, workplace: Path, tmp_path: Path, capsys
) -> None:
    assert main([str(workplace / "runs" / "digits"), str(tmp_path), "--formats", "onx"]) == 1
    assert "unknown format 'onx'; there are safetensors" in capsys.readouterr().err
    assert main([str(workplace / "runs" / "digits"), str(tmp_path), "--formats", ","]) == 1
    assert "no format; there are safetensors" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main([str(workplace / "runs" / "digits"), str(tmp_path / "file")]) == 1
    assert f"{tmp_path}/file cannot be written" in capsys.readouterr().err
    assert main([str(builtin_config / "student.onnx"), str(tmp_path), "--formats", "onnx"]) == 1
    assert "is an exported program" in capsys.readouterr().err


def test_a_shipped_file_measures_like_its_run(builtin_config: Path, workplace: Path, capsys) -> None:
    import json

    from fourds_dist.cli.evaluate import main as evaluate

    values = []
    for place in (
        workplace / "runs" / "digits",
        builtin_config / "student.onnx",
        builtin_config / "student.safetensors",
    ):
        assert evaluate([str(place), "--json", "-"]) == 0
        values.append(json.loads(capsys.readouterr().out))
    assert values[0]["num_images"] == 359
    assert values[0]["confusion"] == values[1]["confusion"] == values[2]["confusion"]
    assert np.trace(values[0]["confusion"]) / 359 == pytest.approx(values[0]["top1"]["value"])
