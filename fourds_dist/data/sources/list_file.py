"""A list of images and labels, one a line; paths are relative to the list and may hold spaces.

    photos/my dog.jpg<TAB>dog            the last tab, or where there is none the last space, comes before the label
    photos/my dog.jpg<TAB>dog<TAB>test   a second tab before a split
    photos/x.jpg<TAB>                    nothing, or -1: unlabelled

python -m fourds_dist.pack list photos.txt DEST
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fourds_dist.data.manifest import SPLITS, first_repeated
from fourds_dist.data.pack.plan import OnProgress
from fourds_dist.data.sources.domain import Domain
from fourds_dist.data.sources.folder import ImageFile, files_domain


def image_list(
    file: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    decode: bool = False,
    num_threads: int = 2,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Domain:
    """A list file as a domain.

    Args:
        name: of the domain; None: the file's, without extension.
        classes: in label order. None: labels that are all numbers from 0 stand for themselves; names are sorted.
        skip_bad: leave out images that are missing or cannot be read, and count them in the notes.
        decode: decode every image to see whether it can be read, not just its header.

    Raises:
        ValueError: naming file and line of what cannot be understood, and images that cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(
            f"{file}: {'a folder' if file.is_dir() else 'no such file'}; give a file of lines 'path label'"
        )
    rows = _rows(file)
    labels = {label for _, _, label, _ in rows if label is not None}
    names = _classes(labels, classes, file)
    files, missing = [], []
    for number, path, label, part in rows:
        if not (file.parent / path).is_file():
            missing.append(f"line {number}: {path}")
            continue
        files.append(
            ImageFile(file.parent / path, Path(path).with_suffix("").as_posix(), label and names[label], part)
        )
    if missing and (not skip_bad or not files):
        raise ValueError(
            f"{file}: {len(missing)} of {len(rows)} images are not there (paths are relative to the list; first: "
            f"{missing[0]}); correct it, or leave them out by --skip-bad"
        )
    return files_domain(
        name or file.stem,
        tuple(dict.fromkeys(names.values())) if classes is None else tuple(classes),
        files,
        {"origin": f"list {file.name}", "missing": len(missing)},
        skip_bad=skip_bad,
        decode=decode,
        num_threads=num_threads,
        on_progress=on_progress,
    )


def read_classes(file: str | Path) -> tuple[str, ...]:
    """A class list: a name a line, in label order; empty lines do not count.

    Raises:
        ValueError: no such file, not text, empty, or a name twice.
    """
    names = [line.strip() for line in _text(Path(file)).splitlines() if line.strip()]
    if not names:
        raise ValueError(f"{file} holds no classes; it takes a name a line, in label order")
    if repeated := first_repeated(names):
        raise ValueError(f"{file} names the class {repeated!r} twice")
    return tuple(names)


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{file} cannot be read as text in UTF-8: {error}") from None


def _rows(file: Path) -> list[tuple[int, str, str | None, str | None]]:
    """(line number, path, label, split) of each line."""
    rows, first_line = [], {}
    for number, line in enumerate(_text(file).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        part = None
        if line.count("\t") > 1:
            line, _, part = line.rpartition("\t")
            part = part.strip()
        path, separator, label = line.rpartition("\t" if "\t" in line else " ")
        path, label = path.strip(), label.strip()
        if not separator or not path:
            raise ValueError(
                f"{file}, line {number}: {line!r} has no label; end the line with a tab for unlabelled images"
            )
        if part is not None and part not in SPLITS:
            raise ValueError(f"{file}, line {number}: {part!r} is no split; {', '.join(SPLITS)} are")
        if path in first_line:
            raise ValueError(f"{file}, line {number}: {path!r} is in line {first_line[path]} already")
        first_line[path] = number
        rows.append((number, path, None if label in ("", "-1") else label, part))
    if not rows:
        raise ValueError(f"{file} is empty")
    return rows


def _classes(labels: set[str], classes: Sequence[str] | None, file: Path) -> dict[str, str]:
    """Label in the list -> class name."""
    numbers = all(label.isascii() and label.isdecimal() for label in labels)
    if classes is None:
        if not labels:
            raise ValueError(
                f"{file} has no labels; a class list (--classes) says what the model is trained to tell"
            )
        if numbers:
            return {str(n): str(n) for n in range(max(map(int, labels)) + 1)} | {
                n: str(int(n)) for n in labels
            }
        return {name: name for name in sorted(labels)}
    if labels <= set(classes):
        return {name: name for name in labels}
    if numbers and all(int(label) < len(classes) for label in labels):
        return {label: classes[int(label)] for label in labels}
    unknown = sorted(label for label in labels - set(classes) if not numbers or int(label) >= len(classes))
    raise ValueError(f"{file} has labels that the class list lacks: {', '.join(unknown[:8])}")
