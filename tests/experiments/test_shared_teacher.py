"""Which runs share a source stage: all keys of the configuration are asked, and those said to change nothing tried."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fourds_dist.config.loading import dump, load
from fourds_dist.config.section import ConfigSection
from fourds_dist.config.trees import flatten
from fourds_dist.experiments.shared_teacher import source_identity, source_run
from fourds_dist.launch.run import run
from fourds_dist.models.weights.networks import StudentConfig
from fourds_dist.stages.settings import Settings
from tests.experiments.compare.small import CHANGES, write_domains

OTHERS: dict[str, Any] = {
    "run": {"name": "other", "criteria": "all", "keep_checkpoints": 1, "retry_timeout_s": 100},
    "data": {"source_fraction": 0.25, "threads": 2, "read_threads": 2, "prefetch_batches": 1,
             "retry_timeout_s": 60, "cache_gib": 1, "decoded_cache_mib": 0, "max_bad_fraction": 0.5,
             "max_megapixels": 1.0},
    "teacher": {"stages": ["layer2"]},
    "student": {"stages": ["layer2"], "name": "other"},
    "source_stage": {"checkpoint_every_steps": 1,
                     "optim": {"adapter_lr": 0.5, "adapter_eps": 0.1, "adapter_weight_decay": 0.5}},
    "step": {"log_every_steps": 3, "max_nonfinite_steps": 2, "overlap_networks": False},
}  # fmt: skip
"""Another value of every key that bears on the source stage, but on no weight of it."""

ELSEWHERE = ("run.dir", "run.until", "prepare", "data.cache_dir", "source.packed_from", "source.validation_labels",
             "target.", "method.",
             "adapt.", "adapt_stage.", "distill_stage.", "launch.", "tracking.")  # fmt: skip
"""Places, later stages, and `launch`, which runs may change when they go on."""


ANOTHER = {"run.select_by": "macro_f1"}
"""Another value where the first other one of a key means the same as its default."""


def keys(section: type[ConfigSection], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is no section, with its annotation."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, ConfigSection):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def changed(section: Any, key: str, annotation: Any) -> Any:
    """With another value, be it one that no run can have."""
    name, _, rest = key.partition(".")
    now = getattr(section, name)
    if rest:
        return section.model_copy(update={name: changed(now, rest, annotation)})
    options = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()
    other = next(o for o in (*options, not now if isinstance(now, bool) else 123) if o != now)
    other = next((value for end, value in ANOTHER.items() if options and end.endswith(f".{key}")), other)
    if key == "students":
        other = (StudentConfig(), StudentConfig(arch="resnet10"))
    return section.model_copy(update={name: other})


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
@pytest.mark.parametrize(("key", "annotation"), [pytest.param(*item, id=item[0]) for item in keys(Settings)])
def test_every_key_of_which_the_weights_depend_and_no_other_is_part_of_the_identity(
    key: str, annotation: Any
) -> None:
    before = Settings()
    is_free = key in dict(flatten(OTHERS)) or key.startswith(ELSEWHERE)
    assert (source_identity(changed(before, key, annotation)) == source_identity(before)) == is_free


def test_of_what_is_given_the_source_stage_does_not_depend() -> None:
    given = load(Settings, None, ["teacher.checkpoint=t", "teacher.start=a"])
    assert source_identity(given) == source_identity(load(Settings, None, ["teacher.checkpoint=t"]))
    start = load(Settings, None, ["student.start=random"])
    assert source_identity(start) != source_identity(Settings())
    assert source_identity(start) == source_identity(
        load(Settings, None, ["student={start: s, arch: resnet34}"])
    )
    assert source_identity(start) == source_identity(Settings(), with_student=False)


def test_what_is_no_part_of_the_identity_changes_no_weight(tmp_path: Path) -> None:
    domains = write_domains(tmp_path, "source", "target")
    words = [f"source.url={domains['source']}", f"target.url={domains['target']}", "prepare=digits"]
    base = load(Settings, None, [*words, *(f"{key}={value}" for key, value in CHANGES.items())])
    (tmp_path / "base.yaml").write_text(dump(base))
    others = [f"{key}={value}" for key, value in flatten(OTHERS)]
    weights = []
    for folder, more in (("one", []), ("two", [*others, f"data.cache_dir={tmp_path}/cache"])):
        of = source_run(load(Settings, tmp_path / "base.yaml", more), f"{tmp_path}/{folder}")
        assert run(of)
        files = ("teacher.safetensors", "student_source.safetensors")
        weights.append([load_file(f"{of.run_url}/{file}") for file in files])
    for one, two in zip(*weights, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
