"""Source stages that train only the last layer, or the last stage, of the teacher."""

# ruff: noqa: F401, F811  (an imported fixture)

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fourds_dist.config.section import ConfigError
from fourds_dist.launch.run import run
from fourds_dist.models.class_names import load_image_text_model
from fourds_dist.reports.report import report
from fourds_dist.stages import probe
from fourds_dist.stages.finished_run import Run
from tests.models.test_class_names import IMAGE_PX, write_model
from tests.stages.test_stages import data, notes, rows, settings
from tests.training.tiny import tiny_network


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of a body that knows no classes."""
    torch.manual_seed(5)
    weights = {k: v for k, v in tiny_network(8).state_dict().items() if not k.startswith("fc")}
    save_file(weights, tmp_path / "body.safetensors")
    return tmp_path / "body.safetensors"


def without_linear(num_classes: int) -> nn.Module:
    """A network that ends in a convolution."""
    layers = [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, num_classes, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("student", ["random", "source"])
def test_a_head_is_probed_and_the_body_stays(data: Path, tmp_path: Path, start: Path, student: str) -> None:
    changes = ("source_stage.train=head", f"teacher.start={start}", f"student.start={student}")
    run(settings(data, tmp_path, "run.name=probed", *changes))
    folder = tmp_path / "probed"
    before, after = load_file(start), load_file(folder / "teacher.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    events = [row["event"] for row in rows(folder) if row["stage"] == "source"]
    assert (events[0], events[-1]) == ("start", "end")
    assert events.count("step") == (2 if student == "source" else 0)
    (line,) = [text for text in notes(folder) if text.startswith("linear probe")]
    assert "32 images, 16 features" in line
    assert "accuracy on the target" in Path(report([Run(str(folder))])).read_text()


def test_the_last_stage_is_trained_after_the_head(data: Path, tmp_path: Path, start: Path) -> None:
    changes = ("source_stage.train=last_stage", f"teacher.start={start}", "run.until=source")
    run(settings(data, tmp_path, "run.name=last", *changes))
    before, after = load_file(start), load_file(tmp_path / "last" / "teacher.safetensors")
    changed = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert changed
    assert all(name.startswith("layer2") for name in changed)  # statistics of layer1 included


def test_features_are_computed_once_a_node(
    data: Path,
    tmp_path: Path,
    start: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = (
        "source_stage.train=head",
        f"teacher.start={start}",
        "run.until=source",
        f"data.cache_dir={tmp_path}/c",
    )
    run(settings(data, tmp_path, "run.name=first", *changes))
    monkeypatch.setattr(probe, "features", None)
    run(settings(data, tmp_path, "run.name=second", *changes))
    first, second = (load_file(tmp_path / name / "teacher.safetensors") for name in ("first", "second"))
    assert torch.equal(first["fc.weight"], second["fc.weight"])
    monkeypatch.undo()
    for file in (tmp_path / "c" / "features").iterdir():
        file.write_bytes(b"torn")
    run(settings(data, tmp_path, "run.name=third", *changes))
    assert torch.equal(load_file(tmp_path / "third" / "teacher.safetensors")["fc.weight"], first["fc.weight"])


def test_a_head_is_made_from_class_names(data: Path, tmp_path: Path) -> None:
    clip = write_model(tmp_path / "clip")
    changes = (
        f"teacher={{arch: 'local-dir:{clip}', start: {clip}/open_clip_model.safetensors, image_px: {IMAGE_PX}, "
        "stages: [blocks.0, blocks.1]}",
        "source_stage.train=class_names",
        "source_stage.templates=['a photo of a {}.', 'a drawing of a {}.']",
        "run.until=source",
    )
    run(settings(data, tmp_path, "run.name=named", *changes))
    head = load_file(tmp_path / "named" / "teacher.safetensors")
    model = load_image_text_model(f"local-dir:{clip}")
    names = ("ant", "bee", "cat", "dog", "elk")
    embeddings = model.class_embeddings(names, ("a photo of a {}.", "a drawing of a {}."))
    expected = embeddings @ model.projection(32)
    factor = head["head.weight"].norm() / expected.norm()  # the scale over the mean norm of the embeddings
    torch.testing.assert_close(head["head.weight"], factor * expected)
    assert not head["head.bias"].any()
    (line,) = [text for text in notes(tmp_path / "named") if text.startswith("last layer")]
    assert "from 5 class names in 2 templates" in line


def test_a_network_without_a_linear_is_refused_beforehand(data: Path, tmp_path: Path) -> None:
    arch = "teacher={arch: tests.stages.test_probe:without_linear, stages: ['0', '2']}"
    with pytest.raises((ConfigError, ValueError), match="needs a Linear as last layer"):
        run(settings(data, tmp_path, "source_stage.train=head", arch))
    assert not (tmp_path / "run").exists()
