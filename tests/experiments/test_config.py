"""The keys that the files of sweeps and of comparisons share."""

from __future__ import annotations

import pytest

from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.experiments.config import ExperimentConfig
from fourds_dist.experiments.sweep.config import SweepConfig


@pytest.mark.parametrize("root", [SweepConfig, CompareConfig])
def test_each_kind_of_file_documents_the_shared_keys_and_gives_defaults(root: type[ExperimentConfig]) -> None:
    assert list(ExperimentConfig.model_fields) == ["name", "config", "changes"]
    for key in ExperimentConfig.model_fields:
        field = root.model_fields[key]
        assert field.description, key
        assert not field.is_required(), key
    assert root.model_fields["config"].default is None
    assert root.model_fields["changes"].get_default(call_default_factory=True) == {}
    assert len({r.model_fields["name"].default for r in (SweepConfig, CompareConfig)}) == 2
