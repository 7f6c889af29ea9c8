"""Settings in texts of other trainers are read without running their code."""

from __future__ import annotations

import json

import pytest

from fourds_dist.models.weights.settings_text import MOST_CHARACTERS, settings_of


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ('{"mean": [0.5, 1]}', {"mean": [0.5, 1]}),
        (
            "data_preprocessor = dict(mean=[123.675, 116.28], to_rgb=True)\nclasses = ('a', 'b')",
            {"data_preprocessor": {"mean": [123.675, 116.28], "to_rgb": True}, "classes": ["a", "b"]},
        ),
        ("a = b = {'x': -1, 2: [None]}", {"a": {"x": -1, 2: [None]}, "b": {"x": -1, 2: [None]}}),
        ("size = (224, other)\nname = 'a' + 'b'", {"size": [224, None], "name": None}),
        ("INPUT:\n  FORMAT: BGR\n", {"INPUT": {"FORMAT": "BGR"}}),
        ("MODEL: &m {A: 1}\nHEAD: {<<: *m, B: 2}", {"MODEL": {"A": 1}, "HEAD": {"A": 1, "B": 2}}),
    ],
)
def test_settings_are_read(text: str, settings: object) -> None:
    assert settings_of(text) == settings


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "7",
        "a photo of a cat",
        "{}",
        "a: [",
        "-" * 400_000 + "1",
        "a = " + "[" * 100_000,
        "a = " + "x(" * 50_000,
        json.dumps({"a": "b" * MOST_CHARACTERS}),
    ],
)
def test_texts_without_settings(text: str) -> None:
    assert settings_of(text) is None


def test_no_code_runs(tmp_path) -> None:
    file = tmp_path / "made"
    text = f"a = __import__('pathlib').Path({str(file)!r}).touch()\nb = [open({str(file)!r}, 'w')]"
    assert settings_of(text) == {"a": {}, "b": [{}]}
    assert not file.exists()
