"""The arguments of `python -m fourds_dist.pack`: every source, the defaults, and values that are refused."""

from __future__ import annotations

import pytest

from fourds_dist.cli.pack_options import parser_of
from fourds_dist.data.datasets.registry import DATASET_BUILDERS


@pytest.mark.parametrize("name", DATASET_BUILDERS)
def test_every_source_is_a_subcommand(name: str) -> None:
    source = DATASET_BUILDERS[name]
    places = [f"place-{a.name}" for a in source.arguments if a.positional]
    options = parser_of("x").parse_args([name, *places, "DEST"])
    assert options.destination == "DEST"
    for argument in source.arguments:
        expected = f"place-{argument.name}" if argument.positional else argument.default
        assert getattr(options, argument.name) == expected
    given = {a.name: a for a in source.arguments if not a.positional}
    words = []
    for a in given.values():
        value = (a.choices or ("0.5" if a.type is float else "7",))[0]
        words += [f"--{a.name.replace('_', '-')}", *([] if a.default is False else [value])]
    options = parser_of("x").parse_args([name, *places, "DEST", *words])
    for a in given.values():
        value = getattr(options, a.name)
        assert value is True or isinstance(value[0] if a.many else value, a.type)


def test_the_values_without_options() -> None:
    options = parser_of(None).parse_args(["folder", "photos", "set"])
    assert (options.subcommand, options.source, options.destination) == ("folder", "photos", "set")
    assert (options.val_fraction, options.test_fraction, options.seed) == (0.1, 0.2, 42)
    assert (options.shard_mb, options.threads, options.max_side, options.quality) == (128, 2, None, None)
    options = parser_of(None).parse_args(["index", "a.tar", "b.tar"])
    assert (options.urls, options.label, options.image, options.no_checksum) == (
        ["a.tar", "b.tar"],
        "cls",
        None,
        False,
    )
    options = parser_of(None).parse_args(["sheet", "a", "b", "out.png"])
    assert (options.urls, options.out, options.images, options.classes) == (["a", "b"], "out.png", 6, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("folder photos set --val-fraction 1", "argument --val-fraction: 1; give 0 or more, and less than 1"),
        ("folder photos set --quality 101", "argument --quality: 101; give 1 to 100"),
        ("folder photos set --threads 0", "argument --threads: 0; give 1 to 256"),
        ("reshard a b --shard-mb 0", "argument --shard-mb: 0; give 1e-06 or more"),
        ("reshard a b --max-side 65537", "argument --max-side: 65537; give 1 to 65536"),
        ("index a.tar --split dev", "argument --split: invalid choice: 'dev'"),
        ("verify", "the following arguments are required: URL"),
    ],
)
def test_impossible_values_are_refused(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parser_of(None).parse_args(words.split())
    assert left.value.code == 2
    assert message in capsys.readouterr().err
