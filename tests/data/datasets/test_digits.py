"""The quickstart's domains: reproducible, with a domain gap, and without test digits in the training split."""

import io
from collections import defaultdict
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.digits import CLASSES, digits
from fourds_dist.data.datasets.photographs import blend, tiles


@pytest.fixture(scope="module")
def domains():
    return {domain.name: (domain, list(domain)) for domain in digits(seed=3)}


def test_images_and_labels(domains):
    for domain, examples in domains.values():
        assert domain.classes == CLASSES
        assert len({example.key for example in examples}) == len(examples)
        image = Image.open(io.BytesIO(examples[0].image))
        assert (image.size, image.mode, image.format) == ((32, 32), "RGB", "PNG")
        assert {e.label for e in examples if e.split == "test"} == set(CLASSES)
    assert len(domains["digits"][1]) == 1797


def test_a_digit_belongs_to_one_split_in_both_domains(domains):
    seen = defaultdict(set)
    for _, examples in domains.values():
        for example in examples:
            seen[example.key.split("-")[0]].add((example.label, example.split))
    assert len(seen) == 1797
    assert all(len(places) == 1 for places in seen.values())


def test_equal_seeds_give_equal_bytes(domains):
    _, target = digits(seed=3)
    assert [e.image for e in islice(target, 500)] == [e.image for e in domains["digits-photos"][1][:500]]
    _, other = digits(seed=4)
    assert next(iter(other)).image != domains["digits-photos"][1][0].image


def test_backgrounds_of_a_split_come_from_its_tiles_only():
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    black = Image.new("RGB", (16, 16))
    generator = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        mine = [
            photographs[number][top:bottom, left:right]
            for number, left, top, right, bottom in tiles(16, 16, split)
        ]
        for _ in range(5):
            crop = np.asarray(blend(black, split, generator))
            assert any(_contains(tile, crop) for tile in mine)


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (28, 28), (32, 32), (80, 80), (20, 64)])
def test_no_pixel_of_the_photographs_belongs_to_two_splits_and_every_split_has_both(size):
    num_splits = np.zeros((2, 427, 640), np.int8)
    shares = {}
    for split in ("train", "val", "test"):
        mine = np.zeros((2, 427, 640), bool)
        for number, left, top, right, bottom in tiles(*size, split):
            assert right - left >= size[0]
            assert bottom - top >= size[1]
            mine[number, top:bottom, left:right] = True
        assert mine.any(axis=(1, 2)).all()
        num_splits += mine
        shares[split] = mine.mean()
    assert num_splits.max() == 1
    assert num_splits.mean() > 0.8
    assert shares["val"] > 0.1
    assert shares["test"] > 0.1
    assert shares["train"] > 0.4


def test_the_splits_show_the_same_scenes():
    """Colour and contrast of the backgrounds differ less between splits than between images of one split."""
    black = Image.new("RGB", (32, 32))
    looks = {}
    for split in ("train", "val", "test"):
        generator = np.random.default_rng(0)
        crops = [np.asarray(blend(black, split, generator), dtype=float) for _ in range(600)]
        looks[split] = np.array([[*crop.mean(axis=(0, 1)), *crop.std(axis=(0, 1))] for crop in crops])
    spread = looks["train"].std(axis=0)
    for split in ("val", "test"):
        distance = np.abs(looks[split].mean(axis=0) - looks["train"].mean(axis=0)) / spread
        assert distance.max() < 0.35, f"{split}: {distance}"


def test_an_image_too_large_for_the_tiles_is_refused():
    with pytest.raises(ValueError, match="at most 80 pixels"):
        blend(Image.new("RGB", (96, 96)), "test", np.random.default_rng(0))


def test_a_classifier_of_the_source_fails_on_the_target(domains):
    from sklearn.svm import SVC

    def arrays(name, split, limit=2500):
        chosen = [e for e in domains[name][1] if e.split == split][:limit]
        pixels = [np.asarray(Image.open(io.BytesIO(e.image)).convert("L").resize((16, 16))) for e in chosen]
        return np.stack(pixels).reshape(len(pixels), -1) / 255.0, [e.label for e in chosen]

    classifier = SVC().fit(*arrays("digits", "train"))
    assert classifier.score(*arrays("digits", "test")) > 0.95
    assert classifier.score(*arrays("digits-photos", "test")) < 0.75


def _contains(stripe, crop):
    height, width = crop.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(stripe, (height, width, 3))[:, :, 0]
    corners = np.argwhere((windows[..., 0, 0, :] == crop[0, 0]).all(-1))
    return any((windows[y, x] == crop).all() for y, x in corners)
