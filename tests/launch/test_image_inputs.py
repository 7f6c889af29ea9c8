"""Image folders of runs: dataset folders for them, what is refused before anything is packed, and reuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.cli.train import main
from fourds_dist.config.loading import Draft, draft, dump
from fourds_dist.config.section import ConfigError
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.experiments.base_run import with_packed_urls
from fourds_dist.launch.chosen import with_images
from fourds_dist.launch.image_inputs import ImageInputs, pack_images, place_of, slug
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import BEST_LABEL_FREE
from tests.data.shards import write_dataset

NETWORK = "{arch: 'tests.method.networks:convolutions', stages: [a, b]}"
WORDS = (
    f"teacher={NETWORK}", f"student={NETWORK}", "data={resize_px: 16, crop_px: 16}", "launch.runner=inline",
    "source_stage={epochs: 1, global_batch_size: 4}", "distill_stage={epochs: 1, global_batch_size: 4}",
)  # fmt: skip


def folder_of(place: Path, classes: str = "ab", num: int = 10, side: int = 16) -> Path:
    for position, label in enumerate(classes):
        (place / label).mkdir(parents=True, exist_ok=True)
        for number in range(num):
            shade = (number * 20, position * 100, side % 256)
            Image.new("RGB", (side, side), shade).save(place / label / f"{number}.png")
    return place


def given(place: Path, *words: str, source: str = "studio", target: str = "street") -> Draft:
    urls = (f"source.url={place}/{source}", f"target.url={place}/{target}", f"run.dir={place}/runs")
    return draft(None, [*urls, *WORDS, *words])


def resolved(place: Path, *words: str, **names: str) -> Settings:
    of = given(place, *words, **names)
    return with_images(of.build(Settings), of)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder_of(tmp_path / "studio")
    folder_of(tmp_path / "street", num=12, side=20)
    return tmp_path


@pytest.mark.parametrize("unlabelled", ["source", "target"])
def test_a_folder_without_labels_has_the_classes_of_the_other(place: Path, unlabelled: str) -> None:
    for number in range(20):
        (place / "flat").mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (number, 7, 7)).save(place / "flat" / f"{number}.png")
    run = resolved(place, **{unlabelled: "flat"})
    found = ImageInputs(place_of(run)).find(run)
    assert found is not None
    assert found.classes == ("a", "b")
    assert list(found.images) == ["source", "target"]
    assert found.images["target" if unlabelled == "target" else "source"].is_unlabelled
    if unlabelled == "target":
        pack_images([run])
        assert run.target.url is not None
        manifest = read_manifest(run.target.url)
        assert [manifest.num_samples(name) for name in ("train", "val", "test")] == [14, 2, 4]
        assert not any(map(any, manifest.class_counts.values()))
    with pytest.raises(ValueError, match="outside class folders"):
        resolved(place, source="flat", target="flat")


def test_a_target_without_class_folders_is_trained_on_by_one_command(place: Path) -> None:
    (place / "flat").mkdir()
    for number in range(40):
        Image.new("RGB", (16, 16), (number * 6, 7, 7)).save(place / "flat" / f"{number}.png")
    words = [f"source.url={place}/studio", f"target.url={place}/flat", f"run.dir={place}/runs", *WORDS]
    assert main([*words, "tracking.wandb=disabled"]) == 0
    summary = Run(f"{place}/runs/studio-to-flat").summary
    assert summary is not None
    assert summary.selected_by == BEST_LABEL_FREE
    assert summary.estimate is not None
    assert {line.target.value for line in summary.lines} == {None}
    assert (place / "runs" / "studio-to-flat" / "report.html").exists()


def test_folders_become_data_sets_and_are_packed_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = resolved(place)
    assert run.run.name == "studio-to-street"
    assert run.source.packed_from == f"{place}/studio"
    assert str(run.source.url).startswith(f"{place}/runs/.packed/studio-")
    assert not (place / "runs").exists()
    pack_images([run, run])
    assert run.source.url is not None
    assert run.target.url is not None
    source, target = read_manifest(run.source.url), read_manifest(run.target.url)
    assert (source.classes, target.classes) == (("a", "b"), ("a", "b"))
    assert (target.num_samples("train"), target.num_samples("val"), target.num_samples("test")) == (18, 2, 4)
    assert "packing 20 images" in capsys.readouterr().err
    # Again, also from the configuration that the run writes, and as a sweep does.
    again = resolved(place)
    assert again == run
    pack_images([again])
    assert capsys.readouterr().err.count("packing") == 0
    sweep = with_packed_urls(given(place), "the sweep").build(Settings)
    assert (sweep.source, sweep.target) == (run.source, run.target)
    place.joinpath("config.yaml").write_text(dump(run))
    of = draft(place / "config.yaml")
    assert with_images(of.build(Settings), of) == run


def test_images_that_change_get_a_folder_of_their_own(place: Path) -> None:
    before = resolved(place)
    pack_images([before])
    folder = RunFolder(before.run_url)
    folder.write_text("config.yaml", dump(before))
    os.utime(place / "studio/a/0.png", ns=(1, 1))
    after = resolved(place)  # nothing of the run has started
    assert after.source.url != before.source.url
    assert after.target.url == before.target.url
    folder.write_json(DONE["source"], {})
    with pytest.raises(
        ConfigError, match=r"source\.url=.*studio: the images or their classes have changed since"
    ):
        resolved(place)
    assert resolved(place, "run.name=other").source.url == after.source.url
    with pytest.raises(
        ValueError, match=r"holds no data set, and the images of source\.packed_from=.* have chan"
    ):
        pack_images(
            [after.model_copy(update={"source": before.source.model_copy(update={"url": f"{place}/x"})})]
        )


def test_shards_beside_a_folder_give_its_classes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "shards", [9])
    folder_of(tmp_path / "street", "012")
    run = resolved(tmp_path, source="shards")
    assert run.source.packed_from is None
    assert run.run.name == "shards-to-street"
    pack_images([run])
    assert run.target.url is not None
    assert read_manifest(run.target.url).classes == ("ant", "bee", "cat")


def test_bad_images_are_refused_before_anything_is_written(place: Path) -> None:
    folder_of(place / "one", "a")
    folder_of(place / "other", "bc")
    (place / "none").mkdir()
    cases = {
        "one": r"source\.url=.*/one: all 10 images are of one class, 'a'",
        "none": r"source\.url=.*/none: .*no class folders with images.*it is empty",
        "other": r"target\.url=.*/street: both domains need the same classes, but only .*/street has 'a' and only "
        r".*/other has 'c'",
        "nowhere": r"nowhere: no such folder",
    }
    for source, message in cases.items():
        with pytest.raises(ValueError, match=message):
            resolved(place, source=source)
    (place / "list.csv").write_text("path,label\nstudio/a/0.png,a\nstudio/b/0.png,b\nstudio/b/99.png,b\n")
    run = resolved(place, "source_stage.global_batch_size=1", source="list.csv")
    with pytest.raises(
        ValueError, match=r"source\.url=.*list\.csv: .*1 of 3 images do not exist.*\n.*fourds pack list"
    ):
        pack_images([run])
    (place / "street/a/0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"target\.url=.*street: 1 of 24 images cannot be read"):
        pack_images([resolved(place)])
    assert not (place / "runs").exists()


def test_bad_settings_are_refused_before_anything_is_written(place: Path) -> None:
    for word, message in {
        "teacher.stages=[a, nowhere]": "nowhere",
        "source_stage.global_batch_size=64": r"source_stage\.global_batch_size=64: .*studio has only 20 images",
    }.items():
        with pytest.raises(ValueError, match=message):
            pack_images([resolved(place), resolved(place, word)])
    assert not (place / "runs").exists()


def test_runs_inside_the_folder_of_images(place: Path) -> None:
    inside = f"run.dir={place}/studio/runs"
    run = resolved(place, inside)
    pack_images([run])
    assert resolved(place, inside).source == run.source
    assert ImageInputs(place_of(run)).find(run) is None


@pytest.mark.parametrize(
    ("name", "part"), [("my photos", "my-photos"), ("写真", ""), (".x", "x"), ("a.b", "a.b")]
)
def test_names_of_folders_as_names_of_runs(tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / name).mkdir()
    assert slug(tmp_path / name) == part
