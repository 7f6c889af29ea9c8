"""The quickstart's domains: reproducible, with a domain gap, and without test digits in the training split."""

import io
from collections import defaultdict
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from fourds_dist.config.loading import load
from fourds_dist.data.datasets.digits import CLASSES, digits
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.pack.verify import verify
from fourds_dist.launch.quickstart import pack_quickstart
from fourds_dist.stages.settings import Settings


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


def test_the_quickstart_packs_what_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fourds_dist.launch.quickstart.digits", lambda: digits(size=8, crops_per_digit=2))
    config = tmp_path / "quick.yaml"
    config.write_text(f"prepare: digits\nsource: {{ url: {tmp_path}/s }}\ntarget: {{ url: {tmp_path}/t }}\n")
    settings = load(Settings, str(config))
    pack_quickstart(settings)
    assert capsys.readouterr().err.splitlines() == [
        f"packing digits into {tmp_path}/s",
        f"packing digits-photos into {tmp_path}/t",
    ]
    manifests = [read_manifest(f"{tmp_path}/{name}") for name in "st"]
    assert [m.name for m in manifests] == ["digits", "digits-photos"]
    assert [m.classes for m in manifests] == [CLASSES, CLASSES]
    assert manifests[1].num_samples("train") == 2 * manifests[0].num_samples("train")
    assert verify(f"{tmp_path}/t")[1] == []

    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pack_quickstart(settings)
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times

    config.write_text(f"prepare: digits\nsource: {{ url: {tmp_path}/t }}\ntarget: {{ url: {tmp_path}/s }}\n")
    with pytest.raises(
        ValueError, match=r"source\.url: .*/t holds another dataset than prepare: digits makes"
    ):
        pack_quickstart(load(Settings, str(config)))
