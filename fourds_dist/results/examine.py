"""A run's networks side by side on its target's test images, and a look inside the adapters; kept beside the report.

The student, itself before distillation, the teacher as it came and the teacher with its adapters all see the same
images. Looking takes time and needs the data; what was seen is kept in report/examination.npz, so that a report can be
rebuilt and laid beside others without either.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourds_dist.data import open_split
from fourds_dist.data.index import UNLABELLED
from fourds_dist.method import FourDs
from fourds_dist.method.backbones import stage_names
from fourds_dist.method.distiller import Predictor
from fourds_dist.results.adapters import AdapterView, look_into
from fourds_dist.results.images import Pictures, ShardImages
from fourds_dist.results.preprocessing import Preprocessing
from fourds_dist.results.run import Run, read_bytes
from fourds_dist.results.scores import Scores, softmax
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.storage import write_bytes
from fourds_dist.training.networks import build
from fourds_dist.training.stages import distilled_teacher
from fourds_dist.training.weights import load_weights, read_weights
from fourds_dist.training.weights_about import About

STUDENT, BEFORE = Network.STUDENT.display_name, Network.STUDENT_BEFORE.display_name
TEACHER, ADAPTED = Network.TEACHER.display_name, Network.TEACHER_ADAPTED.display_name
MOST_IMAGES = 1000
"""Images that are looked at unless other are asked for."""
PATIENCE_S = 15.0
"""Seconds that looking takes where no number of images is asked for; what the report tells is then of fewer images."""
ROUND = 32
"""Images of a batch; the clock is looked at after each."""
MOST_MISTAKES = 24
VERSION = 2


@dataclass(frozen=True)
class Mistake:
    """An image that the student is sure of, wrongly."""

    name: str
    truth: str
    called: str
    confidence: float
    teacher_called: str
    pixels: np.ndarray
    """(3, H, W) uint8."""


@dataclass(frozen=True)
class Examination:
    """What was seen."""

    where: str
    num_of_split: int
    """Test images that there are."""
    num_looked_at: int
    """Of these, evenly spread."""
    classes: tuple[str, ...]
    labels: np.ndarray
    """Of those looked at that have one."""
    probabilities: dict[str, np.ndarray]
    """Network -> (N, K)."""
    mistakes: list[Mistake]
    adapters: AdapterView | None
    """None: the method has none."""

    def scores(self, network: str) -> Scores:
        """Of one network."""
        return Scores(self.labels, self.probabilities[network].astype(np.float64))

    def to_bytes(self, identity: str) -> bytes:
        """As a file without pickled code."""
        about: dict[str, Any] = {
            "identity": identity,
            "where": self.where,
            "num_of_split": self.num_of_split,
            "num_looked_at": self.num_looked_at,
            "classes": self.classes,
            "networks": list(self.probabilities),
            "mistakes": [{k: v for k, v in vars(m).items() if k != "pixels"} for m in self.mistakes],
            "adapters": self.adapters is not None,
        }
        arrays = {f"probabilities{i}": p for i, p in enumerate(self.probabilities.values())}
        arrays |= {f"mistake{i}": m.pixels for i, m in enumerate(self.mistakes)}
        if self.adapters is not None:
            arrays |= self.adapters.to_arrays()
        out = io.BytesIO()
        np.savez_compressed(out, about=np.array(json.dumps(about)), labels=self.labels, **arrays)  # pyright: ignore
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Examination, str]:
        """What `to_bytes` gave, and its identity."""
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            about = json.loads(str(held["about"]))
            mistakes = [Mistake(**m, pixels=held[f"mistake{i}"]) for i, m in enumerate(about["mistakes"])]
            found = cls(
                about["where"],
                about["num_of_split"],
                about["num_looked_at"],
                tuple(about["classes"]),
                held["labels"],
                {name: held[f"probabilities{i}"] for i, name in enumerate(about["networks"])},
                mistakes,
                AdapterView.from_arrays(dict(held)) if about["adapters"] else None,
            )
        return found, about["identity"]


def examined(run: Run, *, num_images: int | None = None) -> Examination:
    """What was kept of a finished run, where it is this very run's, else a new look; which is kept.

    Args:
        num_images: test images to look at, evenly spread; what was kept of fewer is looked at again. None: as many as
            were kept, or MOST_IMAGES within PATIENCE_S.

    Raises:
        ValueError: weights or data that are no longer there.
    """
    identity, path = _identity(run), run.folder.path(RunFile.EXAMINATION)
    if run.folder.exists(RunFile.EXAMINATION):
        try:
            kept, kept_identity = Examination.from_bytes(read_bytes(path))
        except (ValueError, KeyError, TypeError, OSError):  # of another version, or cut short: look again
            pass
        else:
            is_enough = num_images is None or kept.num_looked_at >= min(num_images, kept.num_of_split)
            if kept_identity == identity and is_enough:
                return kept
    seen = examine(run, MOST_IMAGES, PATIENCE_S) if num_images is None else examine(run, num_images)
    write_bytes(path, seen.to_bytes(identity))
    return seen


def examine(run: Run, most_images: int, patience_s: float | None = None) -> Examination:
    """Let all networks of a finished run look at its target's test images, evenly spread over the split.

    Args:
        patience_s: once that many seconds are over, what was seen is enough; None: however long it takes.
    """
    settings = run.settings
    whole = ShardImages(open_split(settings.target, "test", seed=settings.run.seed))
    classes = whole.split.classes
    task, networks = _networks(run, classes)
    preprocessing = Preprocessing.of(settings.data, whole.split.grey_range)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in (task, *(n for n in networks.values() if isinstance(n, nn.Module))):
        module.to(device).eval()

    notes = _Notes(classes, networks)
    until_s = time.monotonic() + (patience_s or float("inf"))
    for pictures in whole.in_rounds(most_images, ROUND).batches(preprocessing, ROUND):
        notes.add(pictures, preprocessing.normalised(pictures.pixels.to(device)))
        if time.monotonic() > until_s and notes.labels:
            break
    if notes.first is None:
        raise ValueError(f"{whole.where}: no labelled images to examine the run by")
    return Examination(
        whole.where,
        whole.num_images,
        notes.num_looked_at,
        classes,
        np.concatenate(notes.labels),
        {name: np.concatenate(values).astype(np.float32) for name, values in notes.probabilities.items()},
        [mistake for _, _, mistake in sorted(notes.worst, reverse=True)],
        look_into(task, notes.first, preprocessing) if len(task.adapters) else None,
    )


class _Notes:
    """What is noted down while looking, batch by batch."""

    def __init__(self, classes: tuple[str, ...], networks: Mapping[str, Predictor]) -> None:
        self._classes, self._networks = classes, networks
        self.num_looked_at = 0
        self.labels: list[np.ndarray] = []
        self.probabilities: dict[str, list[np.ndarray]] = {name: [] for name in networks}
        self.worst: list[tuple[float, int, Mistake]] = []
        self.first: Tensor | None = None

    def add(self, pictures: Pictures, inputs: Tensor) -> None:
        """Have all networks look at a batch, whose normalised images are `inputs`; unlabelled ones are left out."""
        self.num_looked_at += len(pictures.names)
        known = pictures.labels != UNLABELLED
        if not known.any():
            return
        inputs = inputs[known.to(inputs.device)]
        self.first = inputs if self.first is None else self.first
        self.labels.append(pictures.labels[known].numpy())
        with torch.inference_mode():
            seen = {
                name: softmax(predict(inputs).float().cpu().numpy())
                for name, predict in self._networks.items()
            }
        for name, values in seen.items():
            self.probabilities[name].append(values)
        names = [n for n, k in zip(pictures.names, known.tolist(), strict=True) if k]
        self._keep_worst(names, pictures.pixels[known], self.labels[-1], seen)

    def _keep_worst(
        self, names: list[str], pixels: Tensor, labels: np.ndarray, seen: Mapping[str, np.ndarray]
    ) -> None:
        classes = self._classes
        called, sure = seen[STUDENT].argmax(1), seen[STUDENT].max(1)
        teacher = seen[ADAPTED if ADAPTED in seen else TEACHER].argmax(1)
        for i in np.flatnonzero(called != labels):
            words = (classes[labels[i]], classes[called[i]], float(sure[i]), classes[teacher[i]])
            mistake = Mistake(names[i], *words, pixels[i].numpy())
            heapq.heappush(self.worst, (float(sure[i]), self.num_looked_at + int(i), mistake))
            if len(self.worst) > MOST_MISTAKES:
                heapq.heappop(self.worst)


def _networks(run: Run, classes: tuple[str, ...]) -> tuple[FourDs, dict[str, Predictor]]:
    """The task as it was when its student was chosen, and its networks by name."""
    settings, folder, num_classes = run.settings, run.folder, len(classes)
    side = settings.data.crop_px
    teacher = build(settings.teacher, num_classes, image_size=side)
    load_weights(
        distilled_teacher(settings, folder),
        teacher,
        what="teacher.checkpoint",
        run=About.of_run(
            settings.data, settings.teacher, classes, has_source=settings.source.url is not None
        ),
        metadata=settings.teacher.metadata,
        image_size=side,
        tell=lambda text: None,  # the run told it
    )
    student = build(settings.student, num_classes, image_size=side)
    networks: dict[str, Predictor] = {TEACHER: deepcopy(teacher)}
    before = _student_before(run, classes)
    if before is not None:
        networks[BEFORE] = before
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(settings.teacher, teacher),
        student_stages=stage_names(settings.student, student),
        config=settings.method,
        image_size=side,
    )
    if folder.exists(RunFile.ADAPTERS):
        adapted = read_weights(folder.path(RunFile.ADAPTERS), what="adapters")
        unknown = task.load_state_dict(adapted, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"{folder.path(RunFile.ADAPTERS)} does not fit the run's {unknown[0]}")
    if len(task.adapters):
        networks[ADAPTED] = task.predictors()[Network.TEACHER_ADAPTED]
    load_weights(folder.path(RunFile.STUDENT), student, what="student")
    networks[STUDENT] = student
    return task, networks


def _student_before(run: Run, classes: tuple[str, ...]) -> nn.Module | None:
    """The student as distillation began; None where it began with weights drawn at random."""
    settings = run.settings
    start = settings.student.start
    if start == "source":
        start = run.folder.path(RunFile.STUDENT_SOURCE)
    elif start == "random":
        return None
    return build(
        settings.student,
        len(classes),
        start=start,
        key="student.start",
        image_size=settings.data.crop_px,
        run=About.of_run(
            settings.data, settings.student, classes, has_source=settings.source.url is not None
        ),
        tell=lambda text: None,
    )


def _identity(run: Run) -> str:
    """Of what an examination would see: another result, another identity."""
    text = f"{VERSION} {run.config_text} {run.folder.read_text(RunFile.SUMMARY)}"
    return hashlib.sha256(text.encode()).hexdigest()
