"""DeepSpeed's configuration: built-in ones, files, and sections that the run determines."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.io.storage import write_bytes
from fourds_dist.training.strategies.deepspeed_config import OURS, read_config


def test_json_and_yaml_at_paths_and_urls() -> None:
    expected = {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0}
    write_bytes("memory://zero/a.json", b'{"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0}')
    write_bytes("memory://zero/a.yaml", b"zero_optimization: { stage: 2 }\ngradient_clipping: 1.0\n")
    assert read_config("memory://zero/a.json") == read_config("memory://zero/a.yaml") == expected


@pytest.mark.parametrize("section", [*OURS, "fp16", "bf16"])
def test_every_section_of_the_run_is_refused(section: str) -> None:
    write_bytes("memory://zero/section.yaml", f"{section}: 1\n".encode())
    with pytest.raises(
        ValueError, match=rf"^launch\.deepspeed=memory://\S+ has '{section}'.*remove '{section}'"
    ):
        read_config("memory://zero/section.yaml")


def test_no_text_is_refused() -> None:
    write_bytes("memory://zero/picture.yaml", b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="is neither JSON nor YAML with DeepSpeed's sections"):
        read_config("memory://zero/picture.yaml")


@pytest.mark.parametrize("name", ["zero0", "zero1", "zero2", "zero3", "zero3_offload"])
def test_shipped_configurations_are_what_they_say(name: str) -> None:
    assert read_config(name)["zero_optimization"]["stage"] == int(name[4])


class TestRefused:
    def test_no_such_configuration(self) -> None:
        with pytest.raises(
            ValueError, match=r"launch.deepspeed=zero9: neither a file nor.*zero1, zero2, zero3"
        ):
            read_config("zero9")

    def test_what_the_run_decides(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"zero_optimization": {"stage": 1}, "optimizer": {"type": "Adam"}}')
        with pytest.raises(ValueError, match="has 'optimizer', which the keys of the run determine"):
            read_config(f"{tmp_path}/a.json")
        (tmp_path / "b.yaml").write_text("bf16: { enabled: true }")
        with pytest.raises(ValueError, match=r"set step\.precision"):
            read_config(f"{tmp_path}/b.yaml")

    def test_no_configuration_at_all(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text("a: [1")
        with pytest.raises(ValueError, match="neither JSON nor YAML"):
            read_config(f"{tmp_path}/c.yaml")
