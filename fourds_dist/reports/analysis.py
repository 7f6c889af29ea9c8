"""Analysis of a run's networks on the target's test images, and of the adapters.

The networks are the student (of several the best one), this student before distillation, the teacher, and the teacher
with adapters; all predict the same images. The analysis takes time and needs the data, so its result is stored in
report/examination.npz; the report can then be rebuilt without the data and the networks.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourds_dist.data import open_split
from fourds_dist.data.format.index import UNLABELLED
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.images import ShardImages
from fourds_dist.inference.metrics import ClassificationMetrics, softmax
from fourds_dist.io.storage import write_bytes
from fourds_dist.method import FourDs
from fourds_dist.method.output import Predictor
from fourds_dist.models.backbones import BackboneConfig, stage_names
from fourds_dist.models.weights.loading import load_weights, read_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.networks import build
from fourds_dist.reports.adapter_views import StageView, inspect_adapters
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.stages.finished_run import Run, read_bytes
from fourds_dist.stages.network_inputs import conversions, network_inputs, predictor
from fourds_dist.stages.stages import distilled_teacher
from fourds_dist.stages.students import start_of

STUDENT, BEFORE = Network.STUDENT.display_name, Network.STUDENT_BEFORE.display_name
TEACHER, ADAPTED = Network.TEACHER.display_name, Network.TEACHER_ADAPTED.display_name
MOST_IMAGES = 1000
"""Largest number of images to analyse, if no number is requested."""
TIME_LIMIT_S = 15.0
"""Seconds after which the analysis ends, if no number of images is requested."""
ROUND = 32
"""Images per batch; the time limit is checked after each batch."""
MOST_MISTAKES = 24
VERSION = 3
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors that a truncated or changed .npz file raises."""


@dataclass(frozen=True)
class Mistake:
    """A misclassified image."""

    truth: str
    predicted: str
    confidence: float
    teacher_predicted: str
    pixels: np.ndarray
    """(3, H, W) uint8."""


@dataclass(frozen=True)
class PredictionAnalysis:
    """Predictions of a run's networks on N labelled test images with K classes."""

    where: str
    num_of_split: int
    """Images of the test split."""
    num_analysed: int
    """Images analysed, evenly spaced over the split, labelled or not."""
    classes: tuple[str, ...]
    labels: np.ndarray
    """(N,) true classes."""
    probabilities: dict[str, np.ndarray]
    """Network -> (N, K) class probabilities."""
    mistakes: list[Mistake]
    """Images that the student misclassifies, in descending order of its confidence."""
    example: np.ndarray
    """(3, H, W) uint8, the image whose feature maps `adapters` has."""
    adapters: tuple[StageView, ...]
    """Measurements of the adapter of each stage; empty: the method has no adapters."""

    def scores(self, network: str) -> ClassificationMetrics:
        """Return the metrics of one network."""
        return ClassificationMetrics(self.labels, self.probabilities[network].astype(np.float64))

    def to_bytes(self, identity: str) -> bytes:
        """Return the content of an .npz file without pickled objects."""
        plain = {key: getattr(self, key) for key in ("where", "num_of_split", "num_analysed", "classes")}
        metadata = {
            "identity": identity,
            "plain": plain,
            "networks": list(self.probabilities),
            "mistakes": [{k: v for k, v in vars(m).items() if k != "pixels"} for m in self.mistakes],
            "num_adapters": len(self.adapters),
        }
        arrays = {"about": np.array(json.dumps(metadata)), "labels": self.labels, "example": self.example}
        arrays |= {f"probabilities{i}": values for i, values in enumerate(self.probabilities.values())}
        arrays |= {f"mistake{i}": mistake.pixels for i, mistake in enumerate(self.mistakes)}
        for i, stage in enumerate(self.adapters):
            arrays |= {f"adapter{i}_{key}": value for key, value in vars(stage).items()}
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)  # pyright: ignore
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[PredictionAnalysis, str]:
        """Inverse of `to_bytes`: return the analysis and its identity.

        Raises:
            ValueError: the file was truncated or changed, or another version wrote it.
        """
        try:
            return cls._decoded(data)
        except _DAMAGE as error:
            raise ValueError(f"no analysis of a run ({type(error).__name__}: {error})") from None

    @classmethod
    def _decoded(cls, data: bytes) -> tuple[PredictionAnalysis, str]:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key][()] for key in file}
        metadata = json.loads(str(arrays["about"]))
        fields, plain = StageView.__dataclass_fields__, metadata["plain"]
        analysis = cls(
            **{**plain, "classes": tuple(plain["classes"])},
            labels=arrays["labels"],
            probabilities={name: arrays[f"probabilities{i}"] for i, name in enumerate(metadata["networks"])},
            mistakes=[Mistake(**m, pixels=arrays[f"mistake{i}"]) for i, m in enumerate(metadata["mistakes"])],
            example=arrays["example"],
            adapters=tuple(
                StageView(**{key: arrays[f"adapter{i}_{key}"] for key in fields})
                for i in range(metadata["num_adapters"])
            ),
        )
        return analysis, metadata["identity"]


def load_or_analyse(run: Run, *, num_images: int | None = None) -> PredictionAnalysis:
    """Load the stored analysis of a finished run, or analyse the run and store the result.

    The stored analysis is used if it is of this run's configuration and result, and of enough images.

    Args:
        num_images: test images to analyse, evenly spaced. None: the stored analysis, whatever its number of images,
            or a new analysis of at most MOST_IMAGES within TIME_LIMIT_S.

    Raises:
        ValueError: the run's weights or data no longer exist.
    """
    identity, path = _identity(run), run.folder.path(RunFile.EXAMINATION)
    if run.folder.exists(RunFile.EXAMINATION):
        try:
            stored, stored_identity = PredictionAnalysis.from_bytes(read_bytes(path))
        except (ValueError, OSError):
            pass  # another version or a truncated file: analyse again
        else:
            is_enough = num_images is None or stored.num_analysed >= min(num_images, stored.num_of_split)
            if stored_identity == identity and is_enough:
                return stored
    analysis = analyse(run, MOST_IMAGES, TIME_LIMIT_S) if num_images is None else analyse(run, num_images)
    write_bytes(path, analysis.to_bytes(identity))
    return analysis


def analyse(run: Run, most_images: int, time_limit_s: float | None = None) -> PredictionAnalysis:
    """Run all networks of a finished run on at most `most_images` of its target's test images, evenly spaced.

    Args:
        time_limit_s: seconds after which the analysis ends with fewer images; None: no limit.

    Raises:
        ValueError: the run's weights or data no longer exist, or no image has a label.
    """
    settings = run.settings
    whole = ShardImages(open_split(settings.target, "test", seed=settings.run.seed))
    classes = whole.split.classes
    task, networks = _networks(run, classes)
    preprocessing = Preprocessing.of(settings.data, whole.split.grey_range)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for module in (task, *(n for n in networks.values() if isinstance(n, nn.Module))):
        module.to(device).eval()

    num_analysed, worst = 0, list[Mistake]()
    first: tuple[np.ndarray, Tensor] | None = None
    labels: list[np.ndarray] = []
    probabilities: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    deadline_s = time.monotonic() + (time_limit_s or float("inf"))
    for batch in whole.in_rounds(most_images, ROUND).batches(preprocessing, ROUND):
        num_analysed += len(batch.names)
        is_labelled = batch.labels != UNLABELLED
        if is_labelled.any():
            pixels = batch.pixels[is_labelled]
            inputs = preprocessing.normalised(pixels.to(device))
            first = first or (pixels[0].numpy(), inputs)
            labels.append(batch.labels[is_labelled].numpy())
            for name, predict in networks.items():
                with torch.inference_mode():
                    probabilities[name].append(softmax(predict(inputs).float().cpu().numpy()))
            latest = {name: values[-1] for name, values in probabilities.items()}
            found = [*worst, *_mistakes(pixels, labels[-1], latest, classes)]
            worst = heapq.nlargest(MOST_MISTAKES, found, key=lambda mistake: mistake.confidence)
        if time.monotonic() > deadline_s and labels:
            break
    if first is None:
        raise ValueError(f"{whole.where}: no labelled images to analyse the run on; pack the target's test split with "
                         "labels")  # fmt: skip
    return PredictionAnalysis(
        whole.where,
        whole.num_images,
        num_analysed,
        classes,
        np.concatenate(labels),
        {name: np.concatenate(values).astype(np.float32) for name, values in probabilities.items()},
        worst,
        first[0],
        inspect_adapters(task, first[1]) if len(task.adapters) else (),
    )


def _mistakes(
    pixels: Tensor, labels: np.ndarray, probabilities: Mapping[str, np.ndarray], classes: tuple[str, ...]
) -> list[Mistake]:
    """Return the images of a batch that the student misclassifies."""
    confidence, predicted = probabilities[STUDENT].max(1), probabilities[STUDENT].argmax(1)
    teacher = probabilities[ADAPTED if ADAPTED in probabilities else TEACHER].argmax(1)
    found: list[Mistake] = []
    for i in np.flatnonzero(predicted != labels):
        true, student, other = (classes[of_image[i]] for of_image in (labels, predicted, teacher))
        found.append(Mistake(true, student, float(confidence[i]), other, pixels[i].numpy()))
    return found


def _networks(run: Run, classes: tuple[str, ...]) -> tuple[FourDs, dict[str, Predictor]]:
    """Return the task with the weights of the selected epoch, and its networks by name.

    The student before distillation is not among them if its weights were random.
    """
    settings, folder, num_classes = run.settings, run.folder, len(classes)
    name = run.main_student
    config = settings.named_students[name]
    settings = settings.model_copy(update={"student": config, "students": ()})  # the best of several
    inputs = conversions(settings)
    sides = {role: own.image_px for role, own in network_inputs(settings).items()}
    loading: dict[str, Any] = {"notify": lambda text: None}  # the run reported this text

    def expected(config: BackboneConfig) -> NetworkMetadata:
        has_source = settings.source.url is not None
        return NetworkMetadata.of_run(settings.data, config, classes, has_source=has_source)

    teacher = build(settings.teacher, num_classes, image_size=sides["teacher"])
    load_weights(
        distilled_teacher(settings, folder),
        teacher,
        what="teacher.checkpoint",
        run=expected(settings.teacher),
        metadata=settings.teacher.metadata,
        image_size=sides["teacher"],
        **loading,
    )
    networks: dict[str, Predictor] = {TEACHER: predictor(deepcopy(teacher), inputs.get("teacher"))}
    start = start_of(folder, name, config)
    if start != "random":
        loading |= {"start": start, "key": "student.start", "run": expected(config)}
        before = build(config, num_classes, image_size=sides["student"], **loading)
        networks[BEFORE] = predictor(before, inputs.get("student"))
    student = build(config, num_classes, image_size=sides["student"])
    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(settings.teacher, teacher),
        student_stages=stage_names(config, student),
        config=settings.method,
        image_size=settings.data.crop_px,
        inputs=inputs,
    )
    if folder.exists(RunFile.ADAPTERS):
        adapted = read_weights(folder.path(RunFile.ADAPTERS), what="adapters")
        unknown = task.load_state_dict(adapted, strict=False).unexpected_keys
        if unknown:
            raise ValueError(
                f"{folder.path(RunFile.ADAPTERS)} holds {unknown[0]}, which the run's configuration lacks"
            )
    if len(task.adapters):
        networks[ADAPTED] = task.predictors()[Network.TEACHER_ADAPTED]
    load_weights(folder.path(RunFile.STUDENT), student, what="student")
    networks[STUDENT] = predictor(student, inputs.get("student"))
    return task, networks


def _identity(run: Run) -> str:
    """Return a hash of the run's configuration and result, to which a stored analysis belongs."""
    text = f"{VERSION} {run.config_text} {run.folder.read_text(RunFile.SUMMARY)}"
    return hashlib.sha256(text.encode()).hexdigest()
