"""Lists in the dialects that people have: CSV with any delimiter, headers, quotes; TSV; JSON lines; plain lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from fourds_dist.data.datasets.list_file import image_list
from fourds_dist.data.datasets.rows import ListEntry, read_rows

N = 20


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    for n in range(N):
        for name in (f"s{n}.png", f"scan {n}.png", f"a, b {n}.png"):
            Image.new("RGB", (4, 4), (n, len(name), 0)).save(folder / name)
    return folder


def lines(row: str, head: str = "", **more: str) -> str:
    """A row for each image; {n} is its number, {k} its class."""
    return head + "".join(row.format(n=n, k=n % 2, **more) for n in range(N))


TWO = {("0", None): 10, ("1", None): 10}


def of(split: str) -> dict[tuple[str | None, str | None], int]:
    return {("0", split): 10, ("1", split): 10}


UNDERSTOOD = {
    "header.csv": (lines("s{n}.png,{k},train\n", "path,label,split\n"), of("train")),
    "none.csv": (lines("scan {n}.png,{k},train\n"), of("train")),
    "commas.txt": (lines("scan {n}.png,{k},train\n"), of("train")),
    "none.tsv": (lines("s{n}.png\t{k}\tvalid\n"), of("val")),
    "header.tsv": (lines("{k}\ts{n}.png\tTest\n", "class\tfile\tsplit\n"), of("test")),
    "german.csv": (
        lines("scan {n}.png;{k};Validation\r\n", "\ufefffile_name;Class;Split\r\n"),
        of("val"),
    ),
    "excel.csv": (lines("scan {n}.png;{k}\r\n", "sep=;\r\nfilename;class\r\n"), TWO),
    "mac.csv": (lines("s{n}.png,{k}\r", "image,label\r"), TWO),
    "pandas.csv": (lines('{n},"a, b {n}.png",{k}.0\n', ",Image Path,label\n"), TWO),
    "padded.csv": (lines("s{n}.png , {k:03} \n", "image , label\n"), TWO),
    "ids.csv": (lines("s{n},{k}\n", "image_id,label\n"), TWO),
    "windows.csv": (lines(".\\s{n}.png,{k}\n", "image,label\n"), TWO),
    "pipe.csv": (lines("s{n}.png|{k}\n", "image|label\n"), TWO),
    "spaces.txt": (lines("scan {n}.png {k}\n"), TWO),
    "spaces-header.txt": (lines("scan {n}.png {k}\n", "path label\n"), TWO),
    "objects.jsonl": (lines('{{"file_name": "s{n}.png", "label": {k}}}\n'), TWO),
    "text.jsonl": (lines('{{"label": "{k}", "file_name": "s{n}.png", "split": "valid"}}\n'), of("val")),
    "nan.csv": (
        "image,label\n" + "".join(f"s{n}.png,{'nan' if n % 4 == 0 else n % 2}\n" for n in range(N)),
        {(None, None): 5, ("0", None): 5, ("1", None): 10},
    ),
    "empty.csv": (
        "image,label\n" + "".join(f"s{n}.png,{'' if n % 4 == 0 else n % 2}\n" for n in range(N)),
        {(None, None): 5, ("0", None): 5, ("1", None): 10},
    ),
    "eval.csv": (
        "image,label,split\n"
        + "".join(f"s{n}.png,0,{('train', 'eval', 'test', 'train')[n % 4]}\n" for n in range(N)),
        {("0", "train"): 10, ("0", "val"): 5, ("0", "test"): 5},
    ),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_is_understood(place: Path, name: str) -> None:
    text, expected = UNDERSTOOD[name]
    (place / name).write_bytes(text.encode())
    assert Counter((e.label, e.split) for e in image_list(place / name)) == expected


def test_quotes_groups_and_columns_that_mean_nothing(place: Path) -> None:
    text = 'width,image,label,patient_id\n4,"a, b 0.png","big ""dog""",p1\n'
    (place / "q.csv").write_text(text)
    read = read_rows(place / "q.csv")
    assert read.rows == (ListEntry(2, "a, b 0.png", 'big "dog"', None, "p1"),)
    assert read.unread == ("width",)
    domain = image_list(place / "q.csv")
    assert [e.group for e in domain] == ["p1"]
    assert domain.notes["remarks"] == ["columns that were not read: width"]
    assert [e.group for e in image_list(place / "q.csv", group=r"(\d)\.png")] == ["0"]


def test_utf_16(place: Path) -> None:
    (place / "u.csv").write_bytes(lines("s{n}.png;{k}\r\n", "image;label\r\n").encode("utf-16"))
    assert image_list(place / "u.csv").classes == ("0", "1")


REFUSED = {
    "no-label.csv": (lines("s{n}.png,{k}\n", "image,foo\n"), "has no column label, but 'image', 'foo'"),
    "no-path.csv": (lines("s{n}.png,{k}\n", "bild,klasse\n"), "line 1: 'bild,klasse' looks like a header"),
    "kaggle.csv": (lines("s{n},{k}\n", "id_code,diagnosis\n"), "cannot be parsed as CSV"),
    "ragged.csv": (lines("s{n}.png,{k},x\n", "image,label\n"), "line 2: 3 cells, but 2 columns"),
    "twice.csv": (lines("s{n}.png,{k},{k}\n", "image,label,label\n"), "names the column 'label' twice"),
    "quotes.csv": ('image,label\n"s0.png"x,0\n', "line 2: .*; quote cells that contain quotes"),
    "fold.csv": (
        lines("s{n}.png,{k},{n}\n", "image,label,split\n"),
        "line 2: '0' is no split; use train, val",
    ),
    "header-alone.csv": ("image,label\n", "there are no rows below the header"),
    "no-object.jsonl": ("[1]\n", "line 1: not a JSON object"),
    "cut.jsonl": ('{"path": "s0.png"\n', "line 1: not JSON"),
    "list.jsonl": (
        '{"path": "s0.png", "label": [1, 2]}\n',
        "line 1: the label .* is neither a number nor a name",
    ),
    "float.csv": ("".join(f"s{n}.png,{n % 3 / 2}\n" for n in range(N)), r"not whole numbers \(0\.5\)"),
    "ids.csv": (
        lines("s{n}.png,id{n}\n", "image,label\n"),
        "ids, not classes; give the column of the classes",
    ),
    "codes.csv": (
        lines("s{n}.png,100234000{k}\n"),
        r"codes\.csv: line 2 \(s1\.png\): the class number 1002340001 would make 1002340002 classes",
    ),
    "signs.csv": (
        "".join(f"s{n}.png,{n % 2 * 2 - 1}\n" for n in range(N)),
        "the only label is 1, and 10 images",
    ),
    "negative.csv": (
        "".join(f"s{n}.png,{n % 3 - 2}\n" for n in range(N)),
        r"line 1 \(s0\.png\): -2 is no class",
    ),
    "nothing.csv": (lines("s{n}.png,nan\n", "image,label\n"), "has no labels; give the class list"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(place: Path, name: str) -> None:
    text, message = REFUSED[name]
    (place / name).write_bytes(text.encode())
    with pytest.raises(ValueError, match=message) as error:
        image_list(place / name)
    assert str(error.value).startswith(f"{place}/{name}")


def test_the_remedy_for_codes_and_signs(place: Path) -> None:
    (place / "c.csv").write_text(lines("s{n}.png,100234000{k}\n"))
    domain = image_list(place / "c.csv", classes=("1002340001", "1002340000"))
    assert Counter(e.label for e in domain) == {"1002340000": 10, "1002340001": 10}
    (place / "s.csv").write_text("".join(f"s{n}.png,{n % 2 * 2 - 1}\n" for n in range(N)))
    assert Counter(e.label for e in image_list(place / "s.csv", classes=("-1", "1"))) == {"-1": 10, "1": 10}
