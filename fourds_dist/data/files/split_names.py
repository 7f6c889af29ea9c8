"""Names of splits in the spellings of common data sets, for folders, lists, tars and indices.

`split_named` reads a name that means only a split: Training, test_set, val2017. `split_in` finds a split's word in a
longer name: imagenet1k-validation-00.tar, train/00000.tar. `splits_of` reads several names together, which resolves
more names: `eval` beside `test` is the validation split, and `test` in every name of test-rig-train-0.tar,
test-rig-val-0.tar means no split.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

_WORDS = {
    "train": (
        "train", "training", "trn", "trains", "trainings", "trainval",
        "训练", "訓練", "学習", "トレーニング", "훈련", "학습", "обучение", "обучающая", "обучающий", "обучающие",
    ),
    "val": (
        "val", "valid", "validation", "validate", "validating", "vali", "vld", "dev", "devel",
        "验证", "驗證", "検証", "검증", "валидация", "валидационная", "валидационный",
    ),
    "test": (
        "test", "testing", "tst", "tests",
        "测试", "測試", "テスト", "테스트", "тест", "тестовая", "тестовый", "тестовые",
    ),
    "open": ("eval", "evaluation", "evaluate", "holdout", "heldout"),
}  # fmt: skip
"""Split -> its words. Words of "open" mean the test split, or the validation split if there is another test split."""

_SPLIT = {word: split for split, words in _WORDS.items() for word in words}

_FILLER_WORDS = (
    "set sets data dataset datasets split splits image images img imgs im ims photo photos picture pictures pic pics "
    "file files sample samples part parts subset subsets fold folds folder dir only full all jpg jpeg png frames "
    "crops my new the of for and "
    "集 数据 数据集 數據 數據集 图像 图片 圖像 セット データ データセット 用 데이터 데이터셋 세트 выборка данные набор"
)
_FILLERS = frozenset(_FILLER_WORDS.split())
"""Words that do not change the meaning beside a split's word: training_set, images_test, train only."""

_JOINED = re.compile(r"\b(hold|held)[\W_]?(out)", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]+")
_GLUE = "|".join(
    sorted(_FILLERS - {"my", "new", "the", "of", "for", "and", "im", "ims"}, key=len, reverse=True)
)
_ANY = "|".join(sorted(_SPLIT, key=len, reverse=True))
_GLUED = re.compile(rf"({_ANY})(?:{_GLUE})|(?:{_GLUE})({_ANY})")


def split_named(name: str) -> str | None:
    """Return the split ('train', 'val' or 'test') that a whole name means; None if the name has other words.

    Case, digits, punctuation and words such as set, data and images do not count: Training, TEST_01, val-set,
    "Test images". For `eval` and `holdout` see `splits_of`.
    """
    found, rest = _read(name)
    return _open_as_test(_common_split(found)) if not rest else None


def split_in(path: str) -> str | None:
    """Return the split that the last part of a path with a split's word means; None if no part has one.

    Only whole words count: `contest` and `latest` do not contain `test`. If that part has words of several splits, the
    result is None, except that train and val together mean training.
    """
    for part in reversed(re.split(r"[\\/]", path)):
        found, _ = _read(part)
        if found:
            return _open_as_test(_common_split(found))
    return None


def splits_of(paths: Collection[str]) -> dict[str, str | None]:
    """Return the split of each of several paths of one data set, like `split_in`.

    A split's word that all paths contain is ignored if all of them have other split words. `eval`, `evaluation` and
    `holdout` mean the test split, or the validation split if the paths have a test split and no validation split.
    """
    common = _common_words(paths)
    splits: dict[str, str | None] = {}
    for path in paths:
        splits[path] = None
        for part in reversed(re.split(r"[\\/]", path)):
            found = [word for word in _read(part)[0] if word not in common]
            if found:
                splits[path] = _common_split(found)
                break
    present = set(splits.values())
    open_means = "val" if "test" in present and "val" not in present else "test"
    return {path: open_means if split == "open" else split for path, split in splits.items()}


def rest_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, in lower case, that name no split."""
    return tuple(_read(name)[1])


def _common_words(paths: Collection[str]) -> set[str]:
    """Return the split words that every path contains, if every path has other split words, too."""
    words = [{w for part in re.split(r"[\\/]", path) for w in _read(part)[0]} for path in paths]
    common = set.intersection(*words) if words else set()
    return common if common and all(each - common for each in words) else set()


def _read(name: str) -> tuple[list[str], list[str]]:
    """Return (split words, other words without fillers) of one part of a path, in lower case."""
    name = _JOINED.sub(r"\1\2", unicodedata.normalize("NFKC", name))
    tokens = [token.lower() for token in _LETTERS.findall(_CAMEL.sub(" ", name))]
    found: list[str] = []
    rest: list[str] = []
    for token in tokens:
        if token in _SPLIT:
            found.append(token)
        elif match := _GLUED.fullmatch(token):
            found.append(match[1] or match[2])
        elif token not in _FILLERS:
            rest.append(token)
    return found, rest


def _common_split(words: Iterable[str]) -> str | None:
    """Return the split that split words mean together; None if they contradict each other."""
    splits = {_SPLIT[word] for word in words}
    if splits == {"train", "val"}:
        return "train"
    return next(iter(splits)) if len(splits) == 1 else None


def _open_as_test(split: str | None) -> str | None:
    return "test" if split == "open" else split
