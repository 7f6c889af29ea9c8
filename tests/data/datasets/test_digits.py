"""The quickstart's domains: reproducible, with a domain gap, and without test digits in the training split."""

import io
from collections import defaultdict
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.digits import CLASSES, digits


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


def test_a_classifier_of_the_source_fails_on_the_target(domains):
    from sklearn.svm import SVC

    def arrays(name, split, limit=2500):
        chosen = [e for e in domains[name][1] if e.split == split][:limit]
        pixels = [np.asarray(Image.open(io.BytesIO(e.image)).convert("L").resize((16, 16))) for e in chosen]
        return np.stack(pixels).reshape(len(pixels), -1) / 255.0, [e.label for e in chosen]

    classifier = SVC().fit(*arrays("digits", "train"))
    assert classifier.score(*arrays("digits", "test")) > 0.95
    assert classifier.score(*arrays("digits-photos", "test")) < 0.75
