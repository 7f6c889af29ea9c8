"""The paper's data sets: small trees of their published layouts, filled with real photographs."""

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.data.sources.layouts import LAYOUTS
from fourds_dist.data.sources.paper import paper


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


def test_a_missing_domain_says_what_was_looked_for_and_found_and_where_the_set_is(tmp_path, photographs):
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
