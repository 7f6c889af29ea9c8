"""Students loaded from runs, checkpoints and files; and places that are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.evaluate import evaluate_student
from fourds_dist.inference.images import open_labelled
from fourds_dist.inference.loading import load_student
from fourds_dist.runs.layout import CHECKPOINT_STATE
from fourds_dist.stages.finished_run import Run
from tests.finished_run import NUM_TEST


def test_a_run_a_file_and_a_checkpoint_give_the_table_s_student(workplace: Path) -> None:
    run = workplace / "runs" / "digits"
    expected = json.loads((run / "summary.json").read_text())["lines"][-1]["target"]
    best = max(
        (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()),
        key=lambda row: (
            row["validation"]["student"]["accuracy"]
            if (row["stage"], row["event"]) == ("distill", "epoch")
            else -1
        ),
    )
    newest = max((run / "distill").glob("checkpoint-*"))
    assert best["event"] == "epoch"
    for place in (run, run / "student.safetensors", newest):
        student = load_student(place)
        measured = evaluate_student(
            student, open_labelled(str(workplace / "shards/digits-photos"), student.classes)
        )
        assert measured.scores.num_images == NUM_TEST
        assert int(measured.scores.right.sum()) == expected["num_correct"], place


def test_a_file_alone_has_its_preprocessing(workplace: Path, tmp_path: Path) -> None:
    run = workplace / "runs" / "digits"
    seven = workplace / "seven.png"
    for name in ("student.safetensors", "teacher.safetensors", "student_source.safetensors"):
        shutil.copy(run / name, tmp_path)
        alone = load_student(tmp_path / name)
        assert alone.preprocessing == Preprocessing.of(Run(str(run)).settings.data)
        assert alone.predict(seven)[0] == load_student(run / name).predict(seven)[0]


def test_the_folder_of_an_export_is_its_student(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes((run_folder / "student.safetensors").read_bytes())
    student = load_student(tmp_path)
    assert student.origin == f"{tmp_path}/student.safetensors"
    assert student.classes == load_student(run_folder).classes


def test_a_file_without_preprocessing_needs_the_configuration_of_its_run(
    run_folder: Path, tmp_path: Path
) -> None:
    weights = load_file(run_folder / "student.safetensors")
    save_file(weights, tmp_path / "alone.safetensors", metadata={"format": "fourds_dist", "arch": "resnet10",
              "stem": "small", "classes": "\n".join("0123456789")})  # fmt: skip
    with pytest.raises(ValueError, match=r"has no preprocessing in its metadata.*fourds export"):
        load_student(tmp_path / "alone.safetensors")


class TestRefused:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="nothing there"):
            load_student(tmp_path / "none")
        with pytest.raises(ValueError, match="no such file"):
            load_student(tmp_path / "none.safetensors")

    def test_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="has no run"):
            load_student(tmp_path)

    def test_a_run_that_is_not_done(self, run_folder: Path) -> None:
        (run_folder / "student.safetensors").unlink()
        with pytest.raises(ValueError, match="the run is not done"):
            load_student(Run(str(run_folder)))

    def test_a_file_of_another_program(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match="names no architecture"):
            load_student(tmp_path / "other.safetensors")
        (tmp_path / "other.onnx").write_bytes(b"not a model")
        with pytest.raises(ValueError, match=r"no ONNX model|needs ONNX Runtime"):
            load_student(tmp_path / "other.onnx")
        (tmp_path / "other.pt2").write_bytes(b"not a program")
        with pytest.raises(ValueError, match="no exported student"):
            load_student(tmp_path / "other.pt2")

    def test_a_truncated_file(self, run_folder: Path) -> None:
        path = run_folder / "student.safetensors"
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(ValueError, match="truncated"):
            load_student(path)


def test_a_checkpoint_may_be_named_by_its_file(workplace: Path) -> None:
    newest = max((workplace / "runs" / "digits" / "distill").glob("checkpoint-*"))
    by_folder, by_file = load_student(f"{newest}/"), load_student(newest / CHECKPOINT_STATE)
    assert by_file.origin == by_folder.origin == str(newest)
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert torch.equal(by_file.run(pixels), by_folder.run(pixels))


def test_a_checkpoint_of_the_teacher_holds_no_student(workplace: Path) -> None:
    newest = max((workplace / "runs" / "digits" / "source").glob("checkpoint-*"))
    with pytest.raises(ValueError, match=r"give a checkpoint of distill/"):
        load_student(newest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,  # a header larger than any file
        (4).to_bytes(8, "little") + b"[10]",
        (30).to_bytes(8, "little") + b'{"__metadata__":{"arch":[1]}}  ',
    ],
)
def test_a_header_that_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.safetensors is truncated or no safetensors file"):
        load_student(tmp_path / "x.safetensors")


def test_a_file_of_an_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "student.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"student\.pth is no student; give .* \.safetensors, \.pt2, \.onnx"):
        load_student(tmp_path / "student.pth")


def test_published_weights_predict_their_own_classes(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=3)
    (tmp_path / "net").mkdir()
    save_file(network.state_dict(), tmp_path / "net" / "model.safetensors")
    config = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "num_classes": 3,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    for labels, classes in (
        (["n02084071", "n02121808", "n01503061"], ("dog", "domestic cat", "bird")),
        (None, None),
    ):
        about = {"architecture": "test_resnet", "pretrained_cfg": config | {"label_names": labels}}
        (tmp_path / "net" / "config.json").write_text(json.dumps(about))
        arch = f"local-dir:{tmp_path}/net"
        if classes is None:
            with pytest.raises(ValueError, match="the published weights name no classes"):
                load_student(arch)
        else:
            student = load_student(arch)
            assert (student.preprocessing.resize_px, student.preprocessing.crop_px) == (80, 64)
            assert all(found.startswith(name) for found, name in zip(student.classes, classes, strict=True))
