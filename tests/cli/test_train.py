"""`python -m fourds_dist.train`: the main job from shards to table, and what it refuses before anything starts."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from fourds_dist.cli.train import main
from fourds_dist.config.loading import dump, load
from fourds_dist.data import DataConfig, StreamConfig, evaluation_batches, open_split
from fourds_dist.data.datasets.digits import digits
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.data.stream.batch import normalise
from fourds_dist.launch.run import QUICKSTART
from fourds_dist.method import BackboneConfig, build_backbone
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset
from tests.launch.test_image_inputs import WORDS, folder_of
from tests.small_network import STAGES

SHORT = (
    "prepare=null",
    "teacher.arch=resnet10",
    "data.resize_px=18",
    "data.crop_px=16",
    "source_stage.epochs=3",
    "source_stage.global_batch_size=32",
    "distill_stage.epochs=1",
    "target.labels_per_class=30",
    "target.unlabelled=drop",
)
"""Changes to the quickstart that make it a matter of seconds."""

SMALL = tuple(
    f"{network}.{key}={value}"
    for network in ("teacher", "student")
    for key, value in {
        "arch": "tests.small_network:small",
        "stem": "imagenet",
        "stages": json.dumps(STAGES),
    }.items()
)
"""Networks for the tests that train them; the quickstart's ResNets take four times as long."""


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both of the quickstart's domains, packed."""
    folder = tmp_path_factory.mktemp("shards")
    for name, domain in zip(("source", "target"), digits(crops_per_digit=1), strict=True):
        pack_domain(domain, str(folder / name))
    return folder


def arguments(shards: Path, runs: Path, *changes: str) -> list[str]:
    places = (f"source.url={shards}/source", f"target.url={shards}/target", f"run.dir={runs}")
    return [str(QUICKSTART), *SHORT, *places, *changes]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_two_workers_on_ray_from_shards_to_a_student(
    local_ray: None, shards: Path, tmp_path: Path, capsys
) -> None:
    changes = (
        *SMALL,
        "run.name=two",
        "launch.workers=2",
        "launch.cpus_per_worker=0.5",
        "source_stage.epochs=2",
        "distill_stage.epochs=6",
    )
    given = arguments(shards, tmp_path, *changes)
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "teacher with adapters" in out
    assert "359 target and 359 source images tested, each once" in out

    run = tmp_path / "two"
    assert load(Settings, run / "config.yaml").launch.workers == 2
    table = json.loads((run / "summary.json").read_text())
    accuracies = {line["network"]: line["target"] for line in table["lines"]}
    assert accuracies["student"]["num_correct"] / 359 > 0.4  # chance: 0.1
    assert {a["num_samples"] for a in accuracies.values()} == {359}
    events = [row["event"] for row in rows(run)]
    assert events.count("start") == events.count("end") == 2
    assert any((run / "distill").glob("checkpoint-*"))

    # The student's file is enough to get the table's figure again.
    student = build_backbone(BackboneConfig(arch="tests.small_network:small"), 10).eval()
    student.load_state_dict(load_file(run / "student.safetensors"))
    config = DataConfig(resize_px=18, crop_px=16)
    split = open_split(StreamConfig(url=f"{shards}/target"), "test")
    right = 0
    with torch.inference_mode():
        for batch in evaluation_batches(split, config, batch_size_per_rank=100, rank=0, world_size=1):
            images = normalise(batch.images, batch.flip, mean=config.mean, std=config.std)
            right += int((student(images).argmax(1) == batch.labels).sum())
    assert right == accuracies["student"]["num_correct"]

    # The same command again finds it done and prints the same table; another configuration is refused.
    assert main(given) == 0
    assert capsys.readouterr().out == out
    assert main([*given, "distill_stage.epochs=7"]) == 1
    assert "holds a run of another configuration (distill_stage.epochs: 6 -> 7)" in capsys.readouterr().err


def test_one_process_without_ray(shards: Path, tmp_path: Path, capsys, caplog, monkeypatch) -> None:
    changes = (
        *SMALL,
        "run.name=one",
        "launch.runner=inline",
        "tracking.wandb=disabled",
        "method.preset=4ds_released",
    )
    given, page = arguments(shards, tmp_path, *changes), tmp_path / "one" / "report.html"

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fourds_dist.reports.report.report", full)
        assert main(given) == 0  # a report that fails is one line, and no failed run
    (line,) = [record.getMessage() for record in caplog.records if record.name.endswith("report")]
    assert "OSError: No space left on device; try again with `python -m fourds_dist.report" in line
    out = capsys.readouterr().out
    assert "teacher with adapters" in out
    assert "report:" not in out
    step = next(row for row in rows(tmp_path / "one") if row["event"] == "step" and row["stage"] == "distill")
    assert {"student_ce", "phase"} <= set(step["losses"])
    assert "adapters" in step["learning_rates"]
    assert "mix/adapter1" in step["method_values"]

    # The same command makes up for the report, and then leaves it as it is.
    assert main(given) == 0
    assert "accuracy on the target" in page.read_text()
    written_ns = page.stat().st_mtime_ns
    assert main(given) == 0
    assert page.stat().st_mtime_ns == written_ns
    assert capsys.readouterr().out.count(f"report: {page}\n") == 2


def test_a_teacher_of_one_s_own_skips_the_source(shards: Path, tmp_path: Path) -> None:
    teacher = build_backbone(BackboneConfig(arch="resnet10", stem="small"), 10)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    given = (
        f"teacher.checkpoint={tmp_path}/teacher.pt",
        "student.start=random",
        "source.url=null",
        "run.name=own",
        "launch.runner=inline",
        "tracking.wandb=disabled",
    )
    assert main([a for a in arguments(shards, tmp_path) if not a.startswith("source.url")] + list(given)) == 0
    assert {row["stage"] for row in rows(tmp_path / "own")} == {"distill"}
    assert not (tmp_path / "own" / "teacher.safetensors").exists()


class TestRefused:
    """Each with exit status 1, one message that names thing and remedy, and no run folder."""

    @pytest.fixture
    def refused(self, shards: Path, tmp_path: Path, capsys):
        def check(*changes: str) -> str:
            runs = tmp_path / "runs"
            given = arguments(shards, runs, "launch.runner=inline", "launch.workers=1", *changes)
            assert main(given) == 1
            assert not runs.exists()
            message = capsys.readouterr().err
            assert message.startswith("error: ")
            assert "Traceback" not in message
            return message

        return check

    def test_no_shards(self, refused, tmp_path) -> None:
        assert "nothing" in refused(f"target.url={tmp_path}/nothing")

    def test_no_shards_match(self, refused, shards) -> None:
        message = refused(f"target.url={shards}/target/photo-{{000..009}}.tar")
        assert "no shards match" in message
        assert "photo-{000..009}.tar" in message

    def test_a_shard_is_missing_or_cut(self, refused, tmp_path) -> None:
        folder = write_dataset(tmp_path / "set", [40, 40], classes=tuple("0123456789"))
        shard = Path(folder) / "val-00001.tar"
        shard.write_bytes(shard.read_bytes()[:-1])
        assert "val-00001.tar has" in refused(f"target.url={folder}")
        shard.unlink()
        assert "val-00001.tar is missing" in refused(f"target.url={folder}")

    def test_class_lists_differ(self, refused, tmp_path) -> None:
        folder = write_dataset(tmp_path / "set", [40])
        message = refused(f"target.url={folder}")
        assert "class lists differ" in message
        assert "'ant'" in message

    def test_no_validation_split(self, refused, tmp_path) -> None:
        folder = write_dataset(tmp_path / "set", [40], splits=("train", "test"), classes=tuple("0123456789"))
        assert "has no 'val' split (it has: train, test)" in refused(f"target.url={folder}")

    def test_a_teacher_of_another_architecture(self, refused, tmp_path) -> None:
        torch.save(resnet18(num_classes=10).state_dict(), tmp_path / "teacher.pt")
        message = refused(f"teacher.checkpoint={tmp_path}/teacher.pt")
        assert "teacher.checkpoint" in message
        assert "does not fit" in message

    def test_an_interrupted_teacher(self, refused, tmp_path) -> None:
        whole = tmp_path / "whole.pt"
        torch.save(resnet18(num_classes=10).state_dict(), whole)
        (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:100_000])
        assert "truncated" in refused(f"teacher.checkpoint={tmp_path}/cut.pt")

    def test_a_teacher_with_code_in_it(self, refused, tmp_path) -> None:
        (tmp_path / "code.pt").write_bytes(pickle.dumps({"x": Path("y")}, protocol=2))
        assert "pickled code" in refused(f"teacher.checkpoint={tmp_path}/code.pt")

    def test_a_stage_that_the_model_does_not_have(self, refused) -> None:
        message = refused("student.stages=[layer1, layer2, layer3, layr4]")
        assert "student" in message
        assert "did you mean 'layer4'" in message

    def test_more_images_in_a_batch_than_there_are(self, refused) -> None:
        message = refused("distill_stage.global_batch_size=100000")
        assert "lower" in message
        assert "global_batch_size" in message

    def test_unknown_keys_and_impossible_values(self, refused) -> None:
        assert "did you mean 'launch.workers'" in refused("launch.worker=3")
        assert "method.temperature" in refused("method.temperature=-1")
        assert "one configuration at a time" in refused("other.yaml")

    def test_nothing_is_packed_for_what_cannot_work(self, refused, tmp_path) -> None:
        packed = tmp_path / "packed"
        fresh = ("prepare=digits", f"source.url={packed}/source", f"target.url={packed}/target")
        assert "did you mean 'resnet18'" in refused(*fresh, "student.arch=resnet1")
        assert "leaves nothing to run" in refused(
            *fresh, "run.until=source", "teacher.checkpoint=x", "student.start=random"
        )
        assert "prepare: digits needs target.url" in refused(*fresh, "target.url=null")
        assert not packed.exists()

    def test_unusable_run_folders(self, refused) -> None:
        assert "did you mean s3://bucket/runs?" in refused("run.dir=s3:/bucket/runs")
        message = refused("run.dir=memory://runs", "launch.runner=ray")
        assert "is in the memory of one process" in message

    @pytest.mark.usefixtures("no_credentials")
    def test_no_credentials(self, refused) -> None:
        for key in ("target.url", "run.dir"):
            message = refused(f"{key}=s3://no-such-bucket/photos")
            assert "s3://no-such-bucket/photos" in message
            assert "no credentials were found" in message
            assert "AWS_ACCESS_KEY_ID" in message


def test_a_run_that_is_done_stays_as_it_is(shards: Path, tmp_path: Path, capsys) -> None:
    given = arguments(shards, tmp_path, "run.name=done", "launch.runner=inline", "run.until=source")
    given.append("source_stage.epochs=1")
    assert main(given) == 0
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    new = tmp_path / "new"
    assert main([*given, "prepare=digits", f"source.url={new}"]) == 1
    assert (
        f"holds a run of another configuration (source.url: '{shards}/source' -> '{new}')"
        in capsys.readouterr().err
    )
    # Its data may be gone.
    assert main([*given, f"target.url={new}"]) == 0
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_more_workers_than_the_cluster_has(local_ray: None, shards: Path, tmp_path: Path, capsys) -> None:
    sizes = ("source_stage.global_batch_size=60", "distill_stage.global_batch_size=60")
    given = ("run.name=many", "launch.workers=30", "launch.wait_s=3", *sizes)
    assert main(arguments(shards, tmp_path, *given)) == 1
    message = capsys.readouterr()
    assert "waiting up to 3 s for 30 workers with 1 CPU each" in message.out
    assert "no room for 30 workers" in message.err


def test_the_shipped_quickstart_is_whole() -> None:
    settings = load(Settings, QUICKSTART)
    assert settings.prepare == "digits"
    assert "teacher:" in dump(settings)


def test_help_lists_every_key(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for key in ("target.labels_per_class", "distill_stage.optim.lr", "launch.workers", "method.preset"):
        assert f"\n  {key} (" in out


def test_two_folders_of_images_are_a_whole_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("studio", "street"):
        folder_of(tmp_path / name)
    given = [f"source.url={tmp_path}/studio", f"target.url={tmp_path}/street", f"run.dir={tmp_path}/runs"]
    assert main([*given, *WORDS, "run.select_by=macro_f1", "tracking.wandb=disabled"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "macro F1" in out
    assert "student on the target, by class" in out
    assert "by macro F1 and loss" in out
    run = load(Settings, tmp_path / "runs/studio-to-street/config.yaml")
    assert run.prepare is None
    assert run.source.packed_from == f"{tmp_path}/studio"
    # Another image: the run keeps its images, or another run is started.
    folder_of(tmp_path / "street", num=11)
    assert main([*given, *WORDS, "run.select_by=macro_f1"]) == 1
    refused = capsys.readouterr().err
    assert "target.url=" in refused
    assert "have changed since the run in" in refused
    assert main([str(tmp_path / "runs/studio-to-street/config.yaml")]) == 0


def test_folders_that_cannot_be_used_are_refused_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path / "studio", "ab")
    folder_of(tmp_path / "street", "bc")
    given = [f"source.url={tmp_path}/studio", f"run.dir={tmp_path}/runs", "launch.runner=inline"]
    (tmp_path / "mixed").mkdir()
    shutil.copytree(tmp_path / "studio" / "a", tmp_path / "mixed" / "a")
    shutil.copytree(tmp_path / "studio" / "b", tmp_path / "mixed", dirs_exist_ok=True)
    for target, message in {
        "street": "both domains need the same classes, but only",
        "mixed": "images outside class folders",
        "nowhere": "nowhere: no such folder",
    }.items():
        assert main([*given, f"target.url={tmp_path}/{target}"]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
