"""`benchmark data`: the images, the processes of the loaders, and the table."""

from __future__ import annotations

import os

import pytest

from fourds_dist.benchmark import data, peers


def test_another_number_of_images_is_refused(folder):
    with pytest.raises(ValueError, match="holds 24 images, not 25"):
        data.prepare(folder, 25)


@pytest.mark.slow
def test_a_process_measures_and_leaves_nothing_behind(folder):
    setup = peers.Setup("ImageFolder", str(folder), batch_size=4, seconds=0.2, later_starts=(0.5,))
    figures = data._in_a_process(setup, os.environ)
    assert set(figures) == {
        "first_batch_s",
        "images_per_s",
        "images_per_core_s",
        "from_50%_s",
        "peak_bytes",
    }
    assert all(figure > 0 for figure in figures.values())
    assert figures["images_per_core_s"] < 5000


@pytest.mark.slow
def test_a_failure_is_reported(folder):
    with pytest.raises(RuntimeError, match=r"(?s)no_such_folder.*the measurement failed"):
        data._in_a_process(peers.Setup("ImageFolder", str(folder / "no_such_folder")), os.environ)


def test_tables_take_ratios_within_rounds(capsys):
    rows = [
        {
            "peer": name,
            "rounds": [
                {
                    "images_per_core_s": speed * factor,
                    "images_per_s": speed,
                    "peak_bytes": 2**20,
                    "from_0%_s": 0.5,
                    "from_50%_s": 0.5,
                    "from_90%_s": 0.6 * factor,
                }
                for factor in (1.0, 3.0, 2.0)  # a machine that others use
            ],
        }
        for name, speed in ((peers.OURS, 900.0), (peers.WEBDATASET, 300.0))
    ]
    data._show("local files", rows, bytes_per_image=1e6, num_cores=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [
        peers.OURS,
        *["1800", "900", "1800", "3.00", "0.50", "0.50", "0.60", "1.20", "1"],
    ]
    assert lines[-2].endswith("(webdataset): 3.00")
