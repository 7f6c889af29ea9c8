"""SVHN, synthetic digits and USPS from their published files (MNIST: `mnist`; MNIST-M: `paper`).

    dataset            files, in one folder
    svhn               train_32x32.mat, test_32x32.mat
    synthetic-digits   synth_train_32x32.mat, synth_test_32x32.mat
    usps               usps.bz2, usps.t.bz2 (LIBSVM), or zip.train.gz, zip.test.gz, or usps.h5 (needs h5py)

python -m fourds_dist.pack svhn FOLDER DEST
"""

from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fourds_dist.data.datasets.arrays import Part, array_domain
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.mnist import DIGITS
from fourds_dist.io.extras import install

Reader = Callable[[Path], Part]


def svhn(folder: str | Path, *, val_fraction: float = 0.1, seed: int = 42) -> tuple[Domain]:
    """Return SVHN: single digits of house numbers, 32 x 32 in colour."""
    files = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
    return _domain("svhn", folder, [(files, _read_mat)], val_fraction, seed)


def synthetic_digits(folder: str | Path, *, val_fraction: float = 0.1, seed: int = 42) -> tuple[Domain]:
    """Return synthetic digits: fonts rendered over textures (Ganin and Lempitsky, 2015), 32 x 32 in colour."""
    files = {"train": "synth_train_32x32.mat", "test": "synth_test_32x32.mat"}
    return _domain("synthetic-digits", folder, [(files, _read_mat)], val_fraction, seed)


def usps(folder: str | Path, *, val_fraction: float = 0.1, seed: int = 42) -> tuple[Domain]:
    """Return USPS: digits from envelopes, 16 x 16 in grey, white on black."""
    layouts: list[tuple[dict[str, str], Reader]] = [
        ({"train": "usps.bz2", "test": "usps.t.bz2"}, _read_libsvm),
        ({"train": "zip.train.gz", "test": "zip.test.gz"}, _read_zip_text),
        ({"train": "usps.h5#train", "test": "usps.h5#test"}, _read_hdf5),
    ]
    return _domain("usps", folder, layouts, val_fraction, seed)


def _domain(
    name: str,
    folder: str | Path,
    layouts: list[tuple[dict[str, str], Reader]],
    val_fraction: float,
    seed: int,
) -> tuple[Domain]:
    folder = Path(folder)
    for files, read in layouts:
        if all((folder / file.partition("#")[0]).is_file() for file in files.values()):
            parts = {part: _read(folder / file, read) for part, file in files.items()}
            notes = {"origin": f"{name}: {', '.join(files.values())}"}
            return (array_domain(name, DIGITS, parts, val_fraction=val_fraction, seed=seed, notes=notes),)
    expected = "; or ".join(" and ".join(files.values()) for files, _ in layouts)
    found = (
        ", ".join(sorted(path.name for path in folder.iterdir())[:10])
        if folder.is_dir()
        else "no such folder"
    )
    raise ValueError(f"{folder} does not hold {name}: expected {expected}; found {found or 'nothing'}")


def _read(path: Path, read: Reader) -> Part:
    try:
        return read(path)
    except MemoryError:
        raise
    except Exception as error:  # the readers of the four formats raise unrelated exceptions on corrupt files
        raise ValueError(f"{path} cannot be read: {str(error)[:300] or type(error).__name__}") from error


def _read_mat(path: Path) -> Part:
    """Read X of (32, 32, 3, N) and y of (N, 1); SVHN stores the digit 0 as 10."""
    from scipy.io import loadmat

    content = loadmat(path)
    if content["X"].shape[:3] != (32, 32, 3) or content["X"].dtype != np.uint8 or content["X"].ndim != 4:
        raise ValueError(
            f"X is {content['X'].dtype} of shape {content['X'].shape}, not uint8 of (32, 32, 3, N)"
        )
    return np.moveaxis(content["X"], 3, 0), content["y"].reshape(-1).astype(np.int64) % 10


def _read_libsvm(path: Path) -> Part:
    """Read one digit per line: a label 1..10 for 0..9, then 256 pairs index:value from -1 to 1."""
    # Not by scikit-learn, which takes the number of pixels from the largest index in the file.
    with bz2.open(path, "rt") as lines:
        rows = [line.split() for line in lines]
    labels = np.array([int(row[0]) - 1 for row in rows])
    values = np.array([[float(pair.partition(":")[2]) for pair in row[1:]] for row in rows])
    return _as_grey(values), labels


def _read_zip_text(path: Path) -> Part:
    """Read one digit per line: a label, then 256 values from -1 to 1."""
    table = np.loadtxt(path, ndmin=2)
    return _as_grey(table[:, 1:]), table[:, 0].astype(np.int64)


def _read_hdf5(path: Path) -> Part:
    """Read a group (train or test) with `data` (N, 256) from 0 to 1 and `target` (N,)."""
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            f"HDF5 files need h5py: {install('h5py')}; the LIBSVM files need no package"
        ) from None
    file, _, part = path.name.partition("#")
    with h5py.File(path.with_name(file)) as content:
        return _as_grey(2 * content[part]["data"][:] - 1), content[part]["target"][:].astype(np.int64)


def _as_grey(values: np.ndarray) -> np.ndarray:
    """Rows of 256 values from -1 to 1 -> (N, 16, 16) bytes."""
    if values.ndim != 2 or values.shape[1] != 256 or not np.isfinite(values).all():
        raise ValueError(f"the values have the shape {values.shape}, not 256 finite numbers per line")
    return ((values.reshape(-1, 16, 16) + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
