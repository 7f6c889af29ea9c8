"""The methods that advice chooses among, by labels, and their other settings."""

from __future__ import annotations

import pytest

from fourds_dist.config.loading import Draft
from fourds_dist.experiments.advise.candidates import METHODS, PRIORS, UNKNOWN, Regime, candidates, variants
from fourds_dist.stages.settings import Settings

RUN = Draft({"source": {"url": "a"}, "target": {"url": "b"}}, {})


@pytest.mark.parametrize("knows_classes", [True, False])
@pytest.mark.parametrize("regime", Regime)
def test_every_regime_has_methods_whose_keys_make_a_run(regime: Regime, knows_classes: bool) -> None:
    found = candidates(regime, knows_classes=knows_classes)
    assert found[0].name == "4ds"
    assert len(found) >= 3
    for each in found:
        settings = RUN.changed(each.changes, each.name).build(Settings)
        assert (settings.method.normalise_kd == "untrained") == (not knows_classes or each.name == "4ds")
    assert ("cross_entropy" in {each.name for each in found}) == (regime != Regime.NONE)


def test_methods_of_the_user_have_an_open_prior() -> None:
    found = candidates(
        Regime.ALL, knows_classes=True, methods={"mine": {"method.phase_weight": 0.3}, "4ds": {}}
    )
    assert [each.prior for each in found] == [UNKNOWN, PRIORS[Regime.ALL, True]["4ds"]]


@pytest.mark.parametrize(
    ("method", "third"),
    [
        ("4ds", "method.kd_sample_weight"),
        ("mcc_then_distil", "adapt_stage.optim.lr"),
        ("distillation", "method.temperature"),
    ],
)
def test_other_settings_of_a_method(method: str, third: str) -> None:
    (best,) = candidates(Regime.FEW, knows_classes=True, methods={method: METHODS[method]})
    own = RUN.changed(best.changes, "the method").build(Settings)
    found = variants(best, own)
    rates = [each.changes["distill_stage.optim.lr"] / own.distill_stage.optim.lr for each in found[:2]]
    assert rates == pytest.approx([0.3, 3.0])
    assert third in found[2].changes
    assert all(each.of == method and best.changes.items() <= each.changes.items() for each in found)
    assert RUN.changed(found[2].changes, "it").build(Settings) != own
