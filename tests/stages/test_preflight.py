"""What is refused of labels, launch and strategy before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.stages.preflight import _check_batches, _check_launch, _check_shards
from fourds_dist.stages.preflight_networks import check_networks
from fourds_dist.stages.settings import Settings
from tests.data.shards import CLASSES, image_of


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"run": {"retry_timeout_s": 900.0}},
            "launch.collective_timeout_s=900 is not above run.retry_timeout_s=900",
        ),
        (
            {"step": {"max_nonfinite_steps": 1}},
            "step.max_nonfinite_steps does not go with launch.strategy=deepspeed",
        ),
        ({"step": {"compile": True}}, "step.compile does not go with"),
        ({"distill_stage": {"optim": {"max_grad_norm": 1.0}}}, "gradient_clipping in launch.deepspeed=zero1"),
        ({"launch": {"deepspeed": "zero7"}}, "launch.deepspeed=zero7: neither a file"),
        (
            {"distill_stage": {"ema_decay": 0.9}, "launch": {"deepspeed": "zero3"}},
            r"distill_stage\.ema_decay averages whole weights, .* or set ema_decay=null",
        ),
    ],
)
def test_refused_by_name(given: dict[str, Any], message: str) -> None:
    tree = {"source": {"url": "x"}, "target": {"url": "y"}, **given}
    tree["launch"] = {"strategy": "deepspeed", **given.get("launch", {})}
    with pytest.raises(ValueError, match=message):
        _check_launch(Settings.model_validate(tree))


def test_what_goes_together_passes() -> None:
    _check_launch(
        Settings.model_validate(
            {
                "source": {"url": "x"},
                "target": {"url": "y"},
                "launch": {"strategy": "deepspeed", "deepspeed": "zero2"},
                "distill_stage": {"ema_decay": 0.9},
            }
        )
    )
    _check_launch(Settings.model_validate({"launch": {"strategy": "deepspeed", "deepspeed": "zero3"}}))


def test_networks_without_blocks_cannot_run_them_again() -> None:
    tree = {"step": {"activation_checkpointing": True}, "teacher": {"arch": "resnet10"}}
    tree["student"] = {"arch": "tests.method.networks:vgg11_bn", "stages": ("features.7",)}
    tree["data"] = {"crop_px": 32, "resize_px": 36}
    with pytest.raises(ValueError, match=r"student: .*vgg11_bn has no list of blocks that could run again"):
        check_networks(Settings.model_validate(tree), 5)


def packed(folder: Path, **num_labelled: int) -> str:
    """A dataset of nine images a split, all with labels except where a number is given for the split."""
    examples = [
        Example(
            f"{split}{n}",
            image_of(n),
            "png",
            CLASSES[n % 3] if n < num_labelled.get(split, 9) else None,
            split,
        )
        for split in ("train", "val", "test")
        for n in range(9)
    ]
    pack_domain(Domain(folder.name, CLASSES, lambda: examples), str(folder))
    return str(folder)


def domains(target: str, source: str | None, **more: Any) -> Settings:
    return Settings.model_validate({"source": {"url": source}, "target": {"url": target}, **more})


SOURCE_FREE = {"teacher": {"checkpoint": "t.pt"}, "student": {"start": "random"}}


def test_a_target_may_lack_labels_unless_a_criterion_needs_them(tmp_path: Path) -> None:
    bare, whole = packed(tmp_path / "bare", val=0, test=0), packed(tmp_path / "whole")
    for by, key in (("accuracy", "run.select_by"), ("macro_f1", "distill_stage.select_by")):
        section, name = key.split(".")
        message = rf"{key}={by} needs labels, and target\.url={bare}.* has a 'val' split .*; set {key}=auto"
        for url in (bare, f"{bare}/val-{{00000..00000}}.tar"):
            for source, more in ((whole, {}), (None, SOURCE_FREE)):
                with pytest.raises(ValueError, match=message):
                    _check_shards(domains(url, source, **{section: {name: by}}, **more))
                _check_shards(domains(url, source, **more))
        _check_shards(
            domains(bare, whole, run={"until": "source", "select_by": "accuracy"})
        )  # not judged yet


def test_a_calibrated_criterion_needs_labels_of_the_source(tmp_path: Path) -> None:
    bare, whole = packed(tmp_path / "bare", val=0), packed(tmp_path / "whole")
    for by in ("source_accuracy", "confidence"):
        message = rf"run\.select_by={by} needs labels of the source, and source\.url={bare}"
        with pytest.raises(ValueError, match=message):
            _check_shards(domains(whole, bare, run={"select_by": by}, **SOURCE_FREE))


def test_what_learns_from_labels_only_needs_some(tmp_path: Path) -> None:
    none, whole = packed(tmp_path / "none", train=0, val=0, test=0), packed(tmp_path / "whole")
    student_alone = {"method": {"preset": "cross_entropy"}}
    with pytest.raises(
        ValueError, match=r"method\.preset=cross_entropy, .* learns from labels only, and target\.url="
    ):
        _check_shards(domains(none, None, **student_alone, **SOURCE_FREE))
    with pytest.raises(ValueError, match=r"adapt\.method=fine_tune learns from labels only"):
        _check_shards(domains(none, None, adapt={"method": "fine_tune"}, **SOURCE_FREE))
    with pytest.raises(ValueError, match="learns from labels only"):
        _check_shards(domains(none, whole, data={"source_fraction": 0.0}, **student_alone))
    _check_shards(domains(none, whole, **student_alone))  # with labelled source images
    _check_shards(domains(none, None, **SOURCE_FREE))


def test_some_labels_are_enough_and_training_needs_none(tmp_path: Path) -> None:
    some = packed(tmp_path / "some", train=0, val=1, test=1)
    assert _check_shards(domains(some, packed(tmp_path / "whole"))).url == some


def test_a_source_needs_validation_labels_where_it_is_trained_on(tmp_path: Path) -> None:
    bare, whole = packed(tmp_path / "bare", val=0), packed(tmp_path / "whole")
    with pytest.raises(ValueError, match=rf"source\.url={bare} has a 'val' split without a single label"):
        _check_shards(domains(whole, bare))
    _check_shards(domains(whole, bare, **SOURCE_FREE))


def test_a_cache_s_folder_that_cannot_be_written_is_named_by_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given = domains(
        packed(tmp_path / "a"), packed(tmp_path / "b"), data={"cache_dir": f"{tmp_path}/file/cache"}
    )
    given = given.model_copy(update={"launch": given.launch.model_copy(update={"workers": 1})})
    for section in ("source_stage", "adapt_stage", "distill_stage"):
        old = getattr(given, section)
        given = given.model_copy(update={section: old.model_copy(update={"global_batch_size": 4})})
    with pytest.raises(ValueError, match=r"^data\.cache_dir=.*/file/cache cannot be written"):
        _check_batches(given)
