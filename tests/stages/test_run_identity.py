"""What may change when a run is started again, by what has begun; and that what a refusal advises is taken."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fourds_dist.config.loading import dump, load
from fourds_dist.config.section import ConfigError
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.run_identity import AnotherRunError, changes, keep_images, refuse_moved
from fourds_dist.stages.settings import Settings
from tests.data.shards import CLASSES, write_dataset

Begin = Callable[..., RunFolder]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A configuration with data of its own."""
    places = {name: write_dataset(tmp_path / name, [20], classes=CLASSES) for name in ("source", "target")}
    return [f"source.url={places['source']}", f"target.url={places['target']}", f"run.dir={tmp_path}/runs"]


@pytest.fixture
def begin(words: list[str]) -> Begin:
    """A run's folder as it is once the files of some stages are there."""

    def begun(*files: str, **more: str) -> RunFolder:
        settings = load(Settings, None, [*words, *more.get("words", "").split()])
        folder = RunFolder(settings.run_url)
        folder.write_text("config.yaml", dump(settings))
        keep_images(folder, settings)
        for file in files:
            folder.write_text(file, "{}")
        return folder

    return begun


SOURCE_DONE = ("source.json",)
DISTILLING = ("source.json", "distill/checkpoint-00000012/state.pt")
DONE = ("source.json", "summary.json")
AT_ANY_TIME = (
    "data.threads=1 data.prefetch_batches=1 data.read_threads=2 data.retry_timeout_s=9 data.decoded_cache_mib=1",
    "data.shuffle_mib=1 data.max_bad_fraction=0.5 data.decoders=threads data.cache_dir=/cache",
    "data.cache_dir=/cache data.cache_decoded_gib=9",
    "step.eval_batch_size_per_rank=8 step.gradient_accumulation_steps=2 step.log_every_steps=3 "
    "step.max_nonfinite_steps=5",
    "step.compile=true step.cuda_graph=false",
    "step.activation_checkpointing=true",
    "run.retry_timeout_s=3 run.keep_checkpoints=1 run.until=source",
    "source_stage.checkpoint_every_steps=5 distill_stage.checkpoint_every_steps=5",
    "launch.workers=3 launch.runner=inline tracking.wandb=disabled",
    "source_stage.optim.adapter_lr=0.5",
    "source_stage.select_by=accuracy distill_stage.select_by=accuracy",  # as earlier versions wrote their default
    "source.packed_from=/photos",
)


@pytest.mark.parametrize(
    "files", [(), SOURCE_DONE, DISTILLING, DONE], ids=["claimed", "source", "distilling", "done"]
)
@pytest.mark.parametrize("change", AT_ANY_TIME)
def test_what_changes_no_weight_may_change_at_any_time(
    begin: Begin, words: list[str], files: tuple[str, ...], change: str
) -> None:
    folder = begin(*files)
    told = changes(folder, load(Settings, None, [*words, *change.split()]))
    assert [line.partition(":")[0] for line in told] == sorted(
        (word.partition("=")[0] for word in change.split()), key=[*_keys()].index
    )


@pytest.mark.parametrize(
    ("change", "until"),
    [  # the last state in which it may change
        ("run.seed=3", "claimed"),
        ("source_stage.epochs=9", "claimed"),
        ("teacher.arch=resnet50", "claimed"),
        ("student.arch=resnet34", "claimed"),
        ("data.crop_px=64", "claimed"),
        ("source.labels_per_class=3", "claimed"),
        ("source.class_weights=balanced", "claimed"),
        ("run.select_by=macro_f1", "claimed"),
        ("distill_stage.select_by=macro_f1", "source"),
        ("target.class_weights=balanced", "source"),
        ("distill_stage.epochs=9", "source"),
        ("distill_stage.optim.schedule=cosine", "source"),
        ("teacher.stages=[layer2,layer3]", "source"),
        ("student.stages=[layer2,layer3]", "source"),
        ("method.preset=4ds_released", "source"),
        ("target.labels_per_class=3", "source"),
        ("data.source_fraction=0.5", "source"),
        ("adapt.method=fine_tune", "source"),
        ("distill_stage.optim.lr=0.5", "distilling"),
        ("distill_stage.optim.max_grad_norm=1", "distilling"),
    ],
)
def test_what_a_stage_depends_on_may_change_until_it_has_begun(
    begin: Begin, words: list[str], change: str, until: str
) -> None:
    states = {"claimed": (), "source": SOURCE_DONE, "distilling": DISTILLING, "done": DONE}
    may = list(states)[: list(states).index(until) + 1]
    for state, files in states.items():
        folder = begin(*files)
        settings = load(Settings, None, [*words, change])
        if state in may:
            assert changes(folder, settings)
        else:
            with pytest.raises(AnotherRunError, match=change.partition("=")[0].replace(".", r"\.")):
                changes(folder, settings)


def test_a_comparison_s_cells_do_not_change_their_rates_on_the_way(begin: Begin, words: list[str]) -> None:
    settings = load(Settings, None, [*words, "distill_stage.optim.lr=0.5"])
    with pytest.raises(AnotherRunError, match=r"distill_stage\.optim\.lr"):
        changes(begin(*DISTILLING), settings, strict=True)
    assert changes(begin(*SOURCE_DONE), load(Settings, None, [*words, "data.threads=1"]), strict=True)


def test_what_the_source_stage_does_not_train_is_free_until_distillation(
    begin: Begin, words: list[str]
) -> None:
    start = "student.start=random"
    folder = begin(*SOURCE_DONE, words=start)
    assert changes(folder, load(Settings, None, [*words, start, "student.arch=resnet34"]))
    with pytest.raises(AnotherRunError, match=r"student\.start"):
        changes(folder, load(Settings, None, [*words, "student.start=source"]))


def test_the_same_images_may_lie_elsewhere_and_others_may_not(
    begin: Begin, words: list[str], tmp_path: Path
) -> None:
    folder = begin(*DISTILLING)
    (tmp_path / "source").rename(tmp_path / "moved")
    moved = load(Settings, None, [*words, f"source.url={tmp_path}/moved"])
    assert changes(folder, moved) == [f"source.url: '{tmp_path}/source' -> '{tmp_path}/moved'"]
    keep_images(folder, moved)
    others = write_dataset(tmp_path / "others", [30], classes=CLASSES)
    with pytest.raises(AnotherRunError, match=r"source\.url"):
        changes(folder, load(Settings, None, [*words, f"source.url={others}"]))
    # In the same place, other images:
    shutil.rmtree(tmp_path / "moved")
    (tmp_path / "others").rename(tmp_path / "moved")
    with pytest.raises(AnotherRunError, match=r"moved no longer holds the images"):
        keep_images(folder, moved)


def test_a_run_that_began_before_images_were_written_down(
    begin: Begin, words: list[str], tmp_path: Path
) -> None:
    folder = begin(*DISTILLING)
    (Path(folder.url) / "images.json").unlink()
    shutil.copytree(tmp_path / "source", tmp_path / "copy")
    assert changes(folder, load(Settings, None, [*words, f"source.url={tmp_path}/copy"]))
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(AnotherRunError, match=r"source\.url"):
        changes(folder, load(Settings, None, [*words, f"source.url={tmp_path}/copy"]))


def test_files_beside_a_folder_move_with_it(begin: Begin, words: list[str], tmp_path: Path) -> None:
    def at(root: str) -> list[str]:
        return [
            *words,
            f"run.dir={root}/cells",
            f"teacher.checkpoint={root}/sources/t.safetensors",
            "student.start=random",
        ]

    old = load(Settings, None, at(f"{tmp_path}/old"))
    RunFolder(old.run_url).write_text("config.yaml", dump(old))
    RunFolder(old.run_url).write_text("summary.json", "{}")
    (tmp_path / "old").rename(tmp_path / "new")
    new = load(Settings, None, at(f"{tmp_path}/new"))
    assert changes(RunFolder(new.run_url), new) == [
        f"run.dir: '{tmp_path}/old/cells' -> '{tmp_path}/new/cells'"
    ]
    other = new.model_copy(
        update={"teacher": new.teacher.model_copy(update={"checkpoint": "/t.safetensors"})}
    )
    with pytest.raises(AnotherRunError, match=r"teacher\.checkpoint"):
        changes(RunFolder(new.run_url), other)


@pytest.mark.parametrize(
    ("change", "takes_source"),
    [
        ("distill_stage.epochs=9", True),
        ("method.preset=4ds_released", True),
        ("source_stage.epochs=9", False),
    ],
)
def test_the_command_that_a_refusal_names_makes_the_run_that_was_asked_for(
    begin: Begin, words: list[str], change: str, takes_source: bool
) -> None:
    folder = begin(*DONE)
    RunFolder(f"{folder.url}-2").write_text("config.yaml", "")  # a name that is taken
    asked = load(Settings, None, [*words, change])
    with pytest.raises(AnotherRunError) as refused:
        changes(folder, asked)
    command = shlex.split(str(refused.value).partition(": python -m fourds_dist.train ")[2])
    got = load(Settings, command[0], command[1:])
    assert got.run_url == f"{folder.url}-3"
    assert (got.distill_stage, got.method, got.source_stage) == (
        asked.distill_stage,
        asked.method,
        asked.source_stage,
    )
    files = (got.teacher.checkpoint, got.student.start)
    taken = (f"{folder.url}/teacher.safetensors", f"{folder.url}/student_source.safetensors")
    assert files == (taken if takes_source else (None, "source"))
    assert changes(RunFolder(got.run_url), got) == []


def test_a_configuration_of_another_version(begin: Begin, words: list[str]) -> None:
    folder = begin()
    folder.write_text("config.yaml", folder.read_text("config.yaml") + "\nolder: 3\n")
    with pytest.raises(ConfigError, match=r"'older'.*another version of fourds_dist"):
        changes(folder, load(Settings, None, words))


def _keys() -> list[str]:
    from fourds_dist.config.effects import affected

    return list(affected(Settings))


def test_the_configuration_of_a_moved_run_names_the_new_folder(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin("metrics.jsonl")
    config = folder.path("config.yaml")
    refuse_moved(config, load(Settings, config), ())  # at the path where it was written
    (tmp_path / "link").symlink_to(folder.url)
    refuse_moved(f"{tmp_path}/link/config.yaml", load(Settings, config), ())
    moved = tmp_path / "else where" / "other"
    shutil.copytree(folder.url, moved)
    monkeypatch.chdir(moved.parent)
    settings = load(Settings, "other/config.yaml")
    with pytest.raises(
        ConfigError, match=r"other/config\.yaml is in the folder of a run, but names another folder"
    ) as told:
        refuse_moved("other/config.yaml", settings, ["data.threads"])
    words = shlex.split(str(told.value).partition("Give ")[2].partition(" to resume")[0])
    again = load(Settings, "other/config.yaml", words)
    assert again.run_url == str(moved)
    assert {told.partition(":")[0] for told in changes(RunFolder(again.run_url), again)} <= {
        "run.name",
        "run.dir",
    }
    for given in ("run.name", "run.dir"):
        refuse_moved("other/config.yaml", settings, [given])
    spaced = moved.rename(moved.parent / "a copy (1)")
    with pytest.raises(ConfigError, match=r"Rename .*a copy \(1\) to a valid run\.name"):
        refuse_moved(str(spaced / "config.yaml"), settings, ())
    (spaced / "metrics.jsonl").unlink()  # a configuration alone, to begin another run with
    refuse_moved(str(spaced / "config.yaml"), settings, ())
