"""SVHN, synthetic digits and USPS: their published files, made small."""

import bz2
import gzip
import io

import numpy as np
import pytest
from PIL import Image

from fourds_dist.data.datasets.digit_sets import svhn, synthetic_digits, usps


@pytest.fixture
def real_digits():
    """(images (24, 16, 16) of uint8, labels)"""
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    return np.kron(pixels[:24].reshape(-1, 8, 8).clip(0, 15) * 17, np.ones((2, 2))).astype(np.uint8), labels[
        :24
    ]


def shown(example):
    return np.asarray(Image.open(io.BytesIO(example.image)))


@pytest.mark.parametrize(("source", "prefix", "zero"), [(svhn, "", 10), (synthetic_digits, "synth_", 0)])
def test_mat_files(tmp_path, real_digits, source, prefix, zero):
    from scipy.io import savemat

    images, labels = real_digits
    colour = np.repeat(np.kron(images, np.ones((2, 2), np.uint8))[..., None], 3, axis=3)
    written = np.where(labels == 0, zero, labels)
    for part in ("train", "test"):
        content = {"X": np.moveaxis(colour, 0, 3), "y": written[:, None].astype(np.uint8)}
        savemat(tmp_path / f"{prefix}{part}_32x32.mat", content)
    (domain,) = source(tmp_path, val_fraction=0.2)
    examples = list(domain)
    assert [int(e.label) for e in examples] == [*labels, *labels]
    np.testing.assert_array_equal(shown(examples[3]), colour[3])


@pytest.mark.parametrize("layout", ["libsvm", "zip"])
def test_usps_in_both_text_layouts(tmp_path, real_digits, layout):
    images, labels = real_digits
    values = images.reshape(-1, 256) / 127.5 - 1
    for part in ("train", "test"):
        if layout == "libsvm":
            rows = [
                f"{label + 1} " + " ".join(f"{i + 1}:{v:.6f}" for i, v in enumerate(row))
                for label, row in zip(labels, values, strict=True)
            ]
            (tmp_path / {"train": "usps.bz2", "test": "usps.t.bz2"}[part]).write_bytes(
                bz2.compress("\n".join(rows).encode())
            )
        else:
            rows = [
                f"{label:.4f} " + " ".join(f"{v:.6f}" for v in row)
                for label, row in zip(labels, values, strict=True)
            ]
            (tmp_path / f"zip.{part}.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (domain,) = usps(tmp_path)
    examples = list(domain)
    assert [int(e.label) for e in examples] == [*labels, *labels]
    np.testing.assert_array_equal(shown(examples[5])[..., 0], images[5])


def test_what_was_expected_and_what_was_found(tmp_path):
    (tmp_path / "train_32x32.mat.part").touch()
    with pytest.raises(
        ValueError, match=r"expected train_32x32\.mat and test_32x32\.mat; found train_32x32\.mat\.part"
    ):
        svhn(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    for name in ("usps.bz2", "usps.t.bz2"):
        (tmp_path / name).write_bytes(b"not bzip2")
    with pytest.raises(ValueError, match=r"usps\.bz2 cannot be read"):
        usps(tmp_path)
