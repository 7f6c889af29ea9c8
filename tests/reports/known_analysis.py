"""An analysis of six images of three classes whose numbers are known, without a run."""

from __future__ import annotations

import numpy as np

from fourds_dist.reports.adapter_views import StageView
from fourds_dist.reports.analysis import ADAPTED, STUDENT, TEACHER, Mistake, PredictionAnalysis

CLASSES = ("ant", "bee", "cat")
LABELS = (0, 0, 1, 1, 1, 1)
PREDICTED = {STUDENT: (0, 0, 1, 1, 1, 2), TEACHER: (0, 1, 1, 2, 2, 2), ADAPTED: (0, 1, 1, 1, 2, 2)}
CONFIDENCE = 0.75


def known_analysis(*, num_analysed: int = 6, num_adapters: int = 1) -> PredictionAnalysis:
    """Every network is sure of its prediction to 75 %; the student is wrong about the last image alone."""
    rest = (1 - CONFIDENCE) / 2
    probabilities = {
        network: np.where(np.eye(3)[list(predicted)] > 0, CONFIDENCE, rest).astype(np.float32)
        for network, predicted in PREDICTED.items()
    }
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    stage = StageView(
        before=np.ones((2, 2), np.float32),
        after=np.full((2, 2), 2.0, np.float32),
        gain=np.ones((2, 2), np.float32),
        profile=np.array([[0.0, 1.0], [1.0, 1.0]]),
        phase_kept=0.995,
    )
    return PredictionAnalysis(
        where="shards/b (test)",
        num_of_split=12,
        num_analysed=num_analysed,
        classes=CLASSES,
        labels=np.array(LABELS),
        probabilities=probabilities,
        mistakes=[Mistake("bee", "cat", CONFIDENCE, "cat", pixels)],
        example=pixels,
        adapters=(stage,) * num_adapters,
    )
