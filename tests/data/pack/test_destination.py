"""Requests that cannot be packed are refused before an image is read, and nothing is written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.cli.pack import main
from fourds_dist.data.datasets.layouts import LAYOUTS
from fourds_dist.data.datasets.registry import DATASET_BUILDERS
from fourds_dist.data.format.index import ShardIndex
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.destination import check_destination
from tests.data.pack.tars import samples, tar_bytes


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose reading would raise an error, and destinations where nothing can be packed."""
    tmp_path = tmp_path_factory.mktemp("places")
    for label in ("cat", "dog"):
        for folder in ("photos", "OfficeHome/Art", "good"):
            place = tmp_path / folder / label
            place.mkdir(parents=True)
            for n in range(5):
                Image.new("RGB", (9, 9), (n, n, ord(label[0]))).save(place / f"{n}.png")
            if folder != "good":
                (place / "broken.jpg").write_text("no image")
    (tmp_path / "list.csv").write_text("path,label\nphotos/cat/broken.jpg,cat\nphotos/dog/1.png,dog\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "three.txt").write_text("cat\ndog\neel\n")
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    for place in ("foreign", "office/office-home-clipart"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "train-0.tar").write_bytes(tar_bytes(samples(2)))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "digits-photos").write_text("")
    assert main(["folder", str(tmp_path / "good"), str(tmp_path / "other"), "--name", "birds"]) == 0
    return tmp_path


@pytest.fixture
def here(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, in which nothing is to be written."""
    monkeypatch.chdir(places)
    return places


@pytest.fixture
def copy(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for what is written."""
    shutil.copytree(places, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


REFUSED = {
    "a file": ("file", "file is a file"),
    "below a file": ("file/set", "file/set cannot be written"),
    "no disk": ("/proc/x/set", "/proc/x/set cannot be written"),
    "http": ("http://127.0.0.1:9/set", "nothing can be written over HTTP"),
    "tars": ("foreign", "foreign holds 1 tars that were not packed by fourds_dist"),
    "another": ("other", r"other holds another dataset \(birds: 10 images\); --overwrite replaces it"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("source", ["folder photos", "list list.csv"])
def test_destinations(here: Path, capsys: pytest.CaptureFixture[str], source: str, what: str) -> None:
    destination, message = REFUSED[what]
    before = tree(here)
    assert main([*source.split(), destination]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert tree(here) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("folder photos set --classes nowhere.txt", "nowhere.txt"),
        ("folder photos set --classes twice.txt", "names the class 'cat' twice"),
        ("folder photos set --group (", "--group '(' is no regular expression"),
        ("list list.csv set --group [", "--group '[' is no regular expression"),
        ("folder photos set --val-fraction 0.6 --test-fraction 0.6", "leave no training split"),
        ("folder photos set --grey-range 0 inf", "--grey-range 0 inf: give finite numbers, the lower number"),
        ("folder photos set --max-megapixels nan", "--max-megapixels nan: give a finite number above 0"),
        ("folder photos other --name birds --classes three.txt", "other holds another dataset"),
        ("office-home OfficeHome office --domains art clipart", "office-home-clipart holds 1 tars"),
        ("digits taken", "taken/digits-photos is a file"),
        ("digits file", "file/digits cannot be written"),
        ("icons nowhere /proc/x", "/proc/x/icons-line cannot be written"),
        ("icons nowhere new --val-fraction 0.5 --test-fraction 0.5", "leave no training split"),
        ("index foreign --label json:", "json"),
        ("index foreign --classes twice.txt", "names the class 'cat' twice"),
        ("index foreign --to file", "file cannot be written"),
        ("index foreign --to http://127.0.0.1:9/x", "nothing can be written over HTTP"),
        ("sheet other photos.gif", "the last argument must be the image file to write"),
        ("sheet other nowhere sheet.png", "nowhere"),
        ("sheet other file/sheet.png", "file cannot be written"),
        (
            "sheet other other other other other other other other sheet.webp --images 64",
            "too large for WEBP",
        ),
    ],
)
def test_words(here: Path, capsys: pytest.CaptureFixture[str], words: str, message: str) -> None:
    before = tree(here)
    assert main(words.split()) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "images cannot be read" not in error
    assert tree(here) == before


@pytest.mark.parametrize(
    "words",
    [
        "folder photos set --seed -1", "folder photos set --seed x", "folder photos set --shard-mb 0",
        "folder photos set --shard-mb nan", "folder photos set --val-fraction 1", "folder photos set --threads 0",
        "folder photos set --threads 100000000", "folder photos set --test-fraction -0.1", "digits set --size 81",
        "digits set --crops-per-digit 100000000", "digits set --seed -1", "icons photos set --size 1000000",
        "icons photos set --min-sets 0", "usps photos set --val-fraction nan", "index foreign --split dev",
        "sheet other sheet.png --images 1000000", "sheet other sheet.png --classes 0",
    ],
)  # fmt: skip
def test_numbers(here: Path, words: str) -> None:
    before = tree(here)
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert tree(here) == before


def test_the_same_data_set_may_lie_where_nothing_can_be_written(here: Path) -> None:
    """Only packing can find that the data set is the same, so no other destination is requested."""
    check_destination(str(here / "other"), name="birds", classes=("cat", "dog"))
    with pytest.raises(ValueError, match="holds another dataset"):
        check_destination(str(here / "other"), name="birds", classes=("dog", "cat"))
    check_destination(str(here / "other"), name="fish", overwrite=True)
    assert read_manifest("other").name == "birds"


def test_what_a_crash_left_is_no_obstacle_and_stays_until_packing_begins(copy: Path) -> None:
    (copy / "foreign" / "packing.json").write_text('{"shards": ["train-0.tar"]}')
    before = tree(copy)
    check_destination(str(copy / "foreign"), name="x")
    assert tree(copy) == before
    assert main(["folder", "good", "foreign"]) == 0
    assert read_manifest("foreign").num_samples("train") == 8


def test_the_table_has_the_folders_of_all_domains(tmp_path: Path) -> None:
    assert [domain.name for domain in DATASET_BUILDERS["digits"].domains()] == DATASET_BUILDERS[
        "digits"
    ].chosen(None)
    assert DATASET_BUILDERS["office-home"].chosen(["art", "product"]) == [
        "office-home-art",
        "office-home-product",
    ]
    for name, source in DATASET_BUILDERS.items():
        assert source.chosen(None), name
        if name in LAYOUTS:
            assert list(source.names) == list(LAYOUTS[name].domains)


def test_as_many_shards_as_images_and_no_more(copy: Path) -> None:
    assert main(["folder", "good", "small", "--shard-mb", "0.000001"]) == 0
    manifest = read_manifest("small")
    assert [len(shards) for shards in manifest.splits.values()] == [8, 2]
    index = ShardIndex.from_bytes((copy / "small" / "train-00000.tar.index").read_bytes(), "")
    assert len(index) == 1
