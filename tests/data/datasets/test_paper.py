"""The paper's data sets: small trees of their published layouts, filled with real photographs."""

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.data.datasets.layouts import LAYOUTS
from fourds_dist.data.datasets.paper import paper


@pytest.fixture(scope="module")
def photographs():
    """Different crops of a photograph, as JPEG bytes."""
    from sklearn.datasets import load_sample_image

    crops = []
    for index in range(60):
        encoded = io.BytesIO()
        x, y = 10 * (index % 50), 6 * index
        Image.fromarray(load_sample_image("china.jpg")[y : y + 40, x : x + 60]).save(encoded, format="JPEG")
        crops.append(encoded.getvalue())
    return crops


def fill(place: Path, count, photographs, name="frame {}.jpg"):
    place.mkdir(parents=True)
    for index in range(count):
        (place / name.format(index)).write_bytes(photographs[index % len(photographs)])


CLASS_FOLDER_TREES = {
    "office-31": "domain_adaptation_images/{domain}/images",
    "office-home": "OfficeHomeDataset_10072016/{domain}",
    "office-caltech": "{domain}",
    "visda-2017": "{domain}",
    "pacs": "kfold/{domain}",
}


@pytest.mark.parametrize("name", CLASS_FOLDER_TREES)
def test_sets_with_a_folder_per_class(name, tmp_path, photographs):
    layout = LAYOUTS[name]
    classes = [f"Class {i:03}" for i in range(layout.num_classes)]
    for published in layout.domains.values():
        place = tmp_path / CLASS_FOLDER_TREES[name].format(domain=published)
        for label in classes:
            fill(place / label, 10, photographs)
        (place / classes[0] / "Thumbs.db").touch()
        (place / "notes.txt").touch()
    domains = paper(name, tmp_path)
    assert [d.name for d in domains] == [f"{name}-{domain}" for domain in layout.domains]
    for domain in domains:
        assert domain.classes == tuple(classes)
        examples = list(domain)
        assert len({e.key for e in examples}) == len(examples) == 10 * len(classes)
        for label in (classes[0], classes[-1]):
            assert Counter(e.split for e in examples if e.label == label) == {"train": 7, "val": 1, "test": 2}
        assert examples[0].read() == photographs[0]
        assert examples[0].extension == "jpg"
        assert dict(domain.notes["images"]) == Counter(e.split for e in examples)
    assert len({tuple(e.split for e in domain) for domain in domains}) == 1  # The names alone decide.


def write_lists(root, layout, photographs, list_name, path_name, parts=("all",), num_classes=12):
    for published in layout.domains.values():
        for part in parts:
            lines = []
            for index in range(num_classes):
                for number in range(5):
                    path = path_name.format(domain=published, part=part, index=index, number=number)
                    target = root / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(photographs[number])
                    lines.append(f"{path} {index}")
            file = root / list_name.format(domain=published, part=part)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")


def test_imageclef_lists_and_its_fixed_classes(tmp_path, photographs):
    layout = LAYOUTS["imageclef-da"]
    write_lists(
        tmp_path / "image_CLEF", layout, photographs, "list/{domain}List.txt", "{domain}/{index}_{number}.jpg"
    )
    bing, *_ = paper("imageclef-da", tmp_path)
    assert bing.classes[0] == "aeroplane"
    assert {e.label for e in bing} == set(bing.classes)
    assert Counter(e.split for e in bing if e.label == "people")["test"] == 1


def test_an_image_listed_with_two_labels_is_left_out_and_one_listed_twice_counts_once(tmp_path, photographs):
    """As the published pascal list has nine: split line by line, test images came back in training."""
    write_lists(
        tmp_path, LAYOUTS["imageclef-da"], photographs, "{domain}List.txt", "{domain}/{index}_{number}.jpg"
    )
    (plain,) = paper("imageclef-da", tmp_path, domains=["caltech"])
    with (tmp_path / "pList.txt").open("a") as file:
        file.write("p/3_0.jpg 11\np/./7_2.jpg 4\np/5_1.jpg 5\n")
    caltech, pascal = paper("imageclef-da", tmp_path, domains=["caltech", "pascal"])
    names = [e.image.name for e in pascal]
    assert len(set(names)) == len(names) == 12 * 5 - 2
    assert not {"3_0.jpg", "7_2.jpg"} & set(names)
    assert [e.label for e in pascal if e.image.name == "5_1.jpg"] == ["bus"]
    assert (pascal.notes["with two labels"], caltech.notes["with two labels"]) == (2, 0)
    assert list(caltech) == list(plain)


@pytest.fixture
def domainnet(tmp_path, photographs):
    write_lists(
        tmp_path,
        LAYOUTS["domainnet"],
        photographs,
        "{domain}_{part}.txt",
        "{domain}/The Great Wall {index:03}/{domain} {part} {number}.jpg",
        parts=("train", "test"),
    )
    return tmp_path


def test_domainnet_keeps_its_published_test_lists(domainnet):
    clipart, sketch = paper(
        "domainnet", domainnet, domains=["clipart", "sketch"], val_fraction=0.2, partial=True
    )
    assert clipart.classes == sketch.classes
    assert len(clipart.classes) == 12
    assert clipart.classes[7] == "The Great Wall 007"
    examples = list(clipart)
    assert all((e.split == "test") == ("-test-" in e.key) for e in examples)
    assert clipart.notes["images"] == {"test": 5 * 12, "train": 4 * 12, "val": 12}


@pytest.mark.parametrize("splits", ["published", "random"])
def test_an_image_in_both_published_lists_stays_in_the_test_split_alone(domainnet, splits):
    line = "real/The Great Wall 004/real test 2.jpg 4\n"
    with (domainnet / "real_train.txt").open("a") as file:
        file.write(line)
    (real,) = paper("domainnet", domainnet, domains=["real"], splits=splits, partial=True)
    (split,) = [e.split for e in real if e.image.name == "real test 2.jpg" and e.label.endswith("004")]
    assert sum(real.notes["images"].values()) == 2 * 5 * 12
    if splits == "published":
        assert split == "test"
        assert real.notes["images"]["test"] == 5 * 12


def test_an_image_of_two_labels_in_the_two_published_lists_is_left_out(tmp_path, photographs):
    for part, begin in (("train", 0), ("test", 14)):
        lines = []
        for index in range(begin, begin + 15):
            (tmp_path / f"{index:08}.png").write_bytes(photographs[index])
            lines.append(f"{index:08}.png {(index + (part == 'test')) % 10}")
        (tmp_path / f"mnist_m_{part}_labels.txt").write_text("\n".join(lines))
    (domain,) = paper("mnist-m", tmp_path)
    names = [e.image.name for e in domain]
    assert sorted(names) == [f"{index:08}.png" for index in range(29) if index != 14]
    assert domain.notes["with two labels"] == 1


def test_domainnet_randomly_as_in_the_paper(domainnet):
    (real,) = paper("domainnet", domainnet, domains=["real"], splits="random", partial=True)
    examples = list(real)
    assert real.notes["splits"] == "random"
    assert {e.split for e in examples if "-test-" in e.key} == {"train", "val", "test"}


def test_mnist_m_lists_without_folders(tmp_path, photographs):
    layout = LAYOUTS["mnist-m"]
    for part in ("train", "test"):
        fill(tmp_path / "mnist_m" / f"mnist_m_{part}", 30, photographs, "{:08}.png")
        lines = [f"{index:08}.png {index % layout.num_classes}" for index in range(30)]
        (tmp_path / "mnist_m" / f"mnist_m_{part}_labels.txt").write_text("\n".join(lines))
    (domain,) = paper("mnist-m", tmp_path)
    examples = list(domain)
    assert domain.name == "mnist-m"
    assert len({e.key for e in examples}) == 60
    assert [e.label for e in examples[30:]] == [str(i % 10) for i in range(30)]


def test_a_missing_domain_is_an_error_with_the_expected_and_found_folders_and_the_source(
    tmp_path, photographs
):
    fill(tmp_path / "RealWorld" / "Bike", 2, photographs)
    with pytest.raises(ValueError, match="'Art' is not under") as caught:
        paper("office-home", tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "OfficeHomeDataset_10072016" / "Art" / "CLASS" / "IMAGE") in message
    assert "found there: RealWorld" in message
    assert "hemanthdv.org" in message
    with pytest.raises(ValueError, match="no such folder"):
        paper("office-home", tmp_path / "nowhere")


def test_incomplete_copies_are_refused_unless_asked_for(tmp_path, photographs):
    for published in LAYOUTS["pacs"].domains.values():
        for label in ("dog", "house"):
            fill(tmp_path / published / label, 10, photographs)
    with pytest.raises(ValueError, match="published with 7 classes, but 2 were found"):
        paper("pacs", tmp_path)
    assert paper("pacs", tmp_path, partial=True)[0].classes == ("dog", "house")
    (tmp_path / "sketch" / "house").rename(tmp_path / "sketch" / "horse")
    with pytest.raises(ValueError, match="'photo' lacks the classes horse"):
        paper("pacs", tmp_path, partial=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b/none.jpg 3", "there is no 'b/none.jpg'"),
        ("b/0_0.jpg", "is not 'path class-index'"),
        ("b/0_0.jpg 12", "is not 'path class-index'"),
    ],
)
def test_bad_lines_of_a_list_are_named(tmp_path, photographs, line, message):
    write_lists(
        tmp_path, LAYOUTS["imageclef-da"], photographs, "{domain}List.txt", "{domain}/{index}_{number}.jpg"
    )
    with (tmp_path / "bList.txt").open("a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=rf"bList\.txt, line 61: .*{message}"):
        paper("imageclef-da", tmp_path)


def test_an_unknown_domain(tmp_path):
    with pytest.raises(ValueError, match="Office-31 has no domain 'art'; it has amazon, dslr, webcam"):
        paper("office-31", tmp_path, domains=["art"])


def test_files_are_looked_for_and_checked_as_in_folders(tmp_path, photographs):
    for published in LAYOUTS["office-home"].domains.values():
        for label in ("Bed", "Bike"):
            fill(tmp_path / published / label, 10, photographs)
    for number in range(10):
        (tmp_path / "Art" / "Bed" / f"._frame {number}.jpg").write_bytes(b"\0\5\x16\7" + bytes(100))
    fill(tmp_path / "Art" / ".ipynb_checkpoints", 2, photographs)
    fill(tmp_path / "Art" / "@eaDir", 2, photographs)
    (tmp_path / "Art" / "Bed" / "x.HEIC").touch()
    art, *_ = paper("office-home", tmp_path, partial=True)
    assert art.classes == ("Bed", "Bike")
    assert len(list(art)) == 20
    assert art.notes["other files"] == {"hidden": 10}
    assert [line.partition(":")[2] for line in art.notes["remarks"]][1] == " 1 .ipynb_checkpoints, 1 @eaDir"
    bad = tmp_path / "Art" / "Bike" / "frame 0.jpg"
    bad.write_bytes(b"<html>404</html>")
    with pytest.raises(ValueError, match=r"1 of 80 images cannot be read:\n.*Bike/frame 0.jpg"):
        paper("office-home", tmp_path, partial=True)
    art, clipart, *_ = paper("office-home", tmp_path, partial=True, skip_bad=True)
    assert (len(list(art)), art.notes["unreadable"], clipart.notes["unreadable"]) == (19, 1, 0)
    bad.write_bytes(photographs[0][:-200])
    (domain,) = paper("office-home", tmp_path, domains=["art"], partial=True, decode=True, skip_bad=True)
    assert domain.notes["unreadable"] == 1


def test_extensions_are_those_of_the_content(tmp_path, photographs):
    for published in LAYOUTS["office-home"].domains.values():
        fill(tmp_path / published / "Bed", 4, photographs, "{}.png")
    assert {e.extension for e in paper("office-home", tmp_path, partial=True)[0]} == {"jpg"}


def test_folders_and_lists_as_transfer_learning_library_unpacks_them(tmp_path, photographs):
    for place in ("Art", "Clipart", "Product", "Real_World"):
        fill(tmp_path / "home" / place / "Alarm_Clock", 10, photographs)
        (tmp_path / "home" / "image_list").mkdir(exist_ok=True)
        (tmp_path / "home" / "image_list" / f"{place}.txt").write_text(
            f"{place}/Alarm_Clock/frame 0.jpg 33\n"
        )
    domains = paper("office-home", tmp_path / "home", partial=True)
    assert [len(list(domain)) for domain in domains] == [10] * 4
    write_lists(
        tmp_path / "net",
        LAYOUTS["domainnet"],
        photographs,
        "image_list/{domain}_{part}.txt",
        "{domain}/ant {index}/{domain} {part} {number}.jpg",
        parts=("train", "test"),
    )
    (clipart,) = paper("domainnet", tmp_path / "net", domains=["clipart"], partial=True)
    assert Counter(e.split for e in clipart)["test"] == 60
