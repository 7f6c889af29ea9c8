"""The stages, built from the configuration: the teacher learns the source, then 4Ds distils it on the target.

Between the two, methods of two stages adapt the teacher to the target (`adapt.method`). Every worker of a stage calls
`run_stage`; its tools are in `stage`.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch import nn

from fourds_dist.method import AdaptTeacher, FourDs, SourceClassifiers
from fourds_dist.method.backbones import build_backbone, num_parameters, stage_names
from fourds_dist.method.distiller import Predictor
from fourds_dist.runs.events import Sink
from fourds_dist.runs.layout import DONE, STAGES, Network, RunFile, StageName, display_name
from fourds_dist.settings import Settings
from fourds_dist.storage import locate
from fourds_dist.training.evaluate import Plainly
from fourds_dist.training.networks import begin, build
from fourds_dist.training.outcome import Line, Outcome
from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.stage import Stage
from fourds_dist.training.stop import StopSignal, never
from fourds_dist.training.store import CheckpointStore
from fourds_dist.training.weights import encode_weights, load_weights
from fourds_dist.training.weights_about import About
from fourds_dist.training.weights_file import read_file
from fourds_dist.training.world import World

SWITCH_INTERVAL_S = 1e-4
"""How long a decoding thread may hold Python's lock while the training loop waits for it. The loop gives the lock away
at every operation that it queues; at Python's own 5 ms a step on two GPUs took 100 ms of the host's time."""


def stages_to_run(settings: Settings) -> tuple[StageName, ...]:
    """All that the run needs, up to `run.until`.

    No source stage where the teacher is given and the student does not start from the source; one that adapts the
    teacher only where a method for that is named.
    """
    needs_source = settings.teacher.checkpoint is None or settings.student.start == "source"
    needed = {"source": needs_source, "adapt": settings.adapt.method != "none", "distill": True}
    upto = list(needed)[: list(needed).index(settings.run.until) + 1]
    return tuple(stage for stage in STAGES if stage in upto and needed[stage])


def drop_checkpoints(folder: RunFolder, stages: Iterable[StageName] = STAGES) -> None:
    """Remove the checkpoints of a run that will not go on; hundreds of runs would fill any disk with them."""
    for stage in stages:
        fs, path = locate(folder.path(stage))
        if fs.exists(path):
            fs.rm(path, recursive=True)


def from_source(settings: Settings, source_url: str) -> Settings:
    """A run that takes teacher and student from the source stage of another run, at `source_url`."""
    folder, teacher, student = RunFolder(source_url), settings.teacher, settings.student
    if teacher.checkpoint is None:
        teacher = teacher.model_copy(update={"checkpoint": folder.path(RunFile.TEACHER)})
    if student.start == "source":
        student = student.model_copy(update={"start": folder.path(RunFile.STUDENT_SOURCE)})
    return settings.model_copy(update={"teacher": teacher, "student": student})


def source_teacher(settings: Settings, folder: RunFolder) -> str:
    """Path or URL of the teacher that knows the source."""
    return settings.teacher.checkpoint or folder.path(RunFile.TEACHER)


def distilled_teacher(settings: Settings, folder: RunFolder) -> str:
    """Path or URL of the teacher that the last stage distils: the source's, or that adapted to the target."""
    adapts = settings.adapt.method != "none"
    return folder.path(RunFile.TEACHER_ADAPTED) if adapts else source_teacher(settings, folder)


def run_stage(
    name: StageName,
    settings: Settings,
    make_store: Callable[[Callable[[str], None]], CheckpointStore],
    *sinks: Sink,
    stop: StopSignal = never,
    happened: Callable[[], list[str]] = list,
) -> None:
    """Train one stage on this worker; rank 0 leaves its results in the run's folder.

    Args:
        make_store: gives the checkpoints' place, once the process group is there; takes where it tells its troubles.
        sinks: take the events that rank 0 emits, besides metrics.jsonl and W&B.
        stop: tells when to leave early.
        happened: what befell the run since its last start, a line each, once.

    Raises:
        Stopped: it was told to leave and did, with a checkpoint.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    world = World.join(timeout_s=settings.launch.collective_timeout_s)
    # Every rank draws the same first weights; streams and augmentation have generators of their own.
    torch.manual_seed(settings.run.seed)
    folder = RunFolder(settings.run_url, patience_s=settings.run.patience_s)
    stage = Stage(name, settings, world, folder, make_store, sinks, stop, happened)
    if settings.teacher.checkpoint is not None and name == stages_to_run(settings)[0]:
        judge_teacher(stage, settings.teacher.checkpoint)
    RUN[name](stage)
    world.barrier()


def load_teacher(stage: Stage, url: str, classes: tuple[str, ...]) -> nn.Module:
    """The teacher with all its weights, from a file that is held against the run.

    Raises:
        ValueError: weights that do not fit, or that are for other classes or images.
    """
    settings, side = stage.settings, stage.settings.data.crop_px
    teacher = build_backbone(settings.teacher, len(classes), side)
    load_weights(
        url,
        teacher,
        what="teacher.checkpoint",
        run=stage.needs(settings.teacher, classes),
        metadata=settings.teacher.metadata,
        image_size=side,
        tell=stage.tell,
    )
    return teacher


def judge_teacher(stage: Stage, url: str) -> None:
    """Tell where a teacher whose file does not say what it was trained for is no better than chance.

    Its classes may be in another order, or its images prepared in another way. The source's validation split judges, or
    the target's where there is no source.
    """
    file = read_file(url, what="teacher.checkpoint")
    about = About.of_file(file.about, tensors=file.tensors)
    is_checked = stage.settings.teacher.metadata == "check"
    if is_checked and about.classes is not None and "mean" in about.preprocessing:
        return
    settings, device = stage.settings, stage.world.device
    domain = settings.target if settings.source.url is None else settings.source
    classes = stage.split(domain, "val").classes
    with torch.random.fork_rng(devices=[]):  # the stage draws the numbers that it would draw without this
        teacher = load_teacher(stage, url, classes).to(device).eval()
    images = Plainly(device, settings.data.mean, settings.data.std)
    judged = stage.evaluate({"teacher": teacher}, domain, "val", images)["teacher"]
    chance = 1 / len(classes)
    reached = judged.value if judged.mean_per_class is None else judged.mean_per_class
    margin = max(2 * math.sqrt(chance * (1 - chance) / max(1, judged.num_samples)), 0.1 * (1 - chance))
    if judged.num_samples and reached <= chance + margin:
        stage.tell(
            f"teacher.checkpoint: {url} recognises {reached:.1%} of {domain.url}'s validation split (mean "
            "over classes), "
            f"where chance is {chance:.1%}: its classes may be in another order than the data's, or its "
            "images prepared "
            "in another way than data.mean, data.std, data.resize_px and data.crop_px say"
        )


def train_on_source(stage: Stage) -> None:
    """Train the teacher (unless given) and the student (if it starts from the source) on the source shards."""
    settings, classes = stage.settings, stage.split(stage.settings.source, "train").classes
    side = settings.data.crop_px
    networks: dict[str, nn.Module] = {}
    if settings.teacher.checkpoint is None:
        start = settings.teacher.start
        networks[Network.TEACHER.value] = build(
            settings.teacher,
            len(classes),
            start=start,
            key="teacher.start",
            image_size=side,
            run=stage.needs(settings.teacher, classes),
            tell=stage.tell,
        )
    if settings.student.start == "source":
        networks[Network.STUDENT.value] = build(settings.student, len(classes), image_size=side)
    selected = next(iter(networks))
    best, _, _ = stage.fit(SourceClassifiers(networks), selected, settings.source)
    if stage.world.is_main:
        configs = {
            Network.TEACHER: (settings.teacher, RunFile.TEACHER),
            Network.STUDENT: (settings.student, RunFile.STUDENT_SOURCE),
        }
        for name, network in networks.items():
            config, file = configs[Network(name)]
            accuracy = {"validation_accuracy": best.accuracy} if name == selected else {}
            about = stage.about(config, classes, domain=settings.source.url, **accuracy)
            stage.folder.write_bytes(file, encode_weights(network.state_dict(), about))
        stage.folder.write_json(DONE["source"], {"epoch": best.epoch, "validation_accuracy": best.accuracy})


def adapt_to_target(stage: Stage) -> None:
    """Train the whole teacher on the target shards, for methods of two stages."""
    settings, classes = stage.settings, stage.split(stage.settings.target, "train").classes
    teacher = load_teacher(stage, source_teacher(settings, stage.folder), classes)
    best, _, _ = stage.fit(AdaptTeacher(teacher, settings.adapt), "teacher", settings.target)
    if stage.world.is_main:
        about = stage.about(
            settings.teacher, classes, validation_accuracy=best.accuracy, domain=settings.target.url
        )
        stage.folder.write_bytes(RunFile.TEACHER_ADAPTED, encode_weights(teacher.state_dict(), about))
        stage.folder.write_json(DONE["adapt"], {"epoch": best.epoch, "validation_accuracy": best.accuracy})


def distil_on_target(stage: Stage) -> None:
    """Run 4Ds on the target shards, then test everything once and write student, adapters and summary."""
    settings, world = stage.settings, stage.world
    classes = stage.split(settings.target, "train").classes
    side = settings.data.crop_px
    teacher = load_teacher(stage, distilled_teacher(settings, stage.folder), classes)
    from_source = settings.student.start == "source"
    start = stage.folder.path(RunFile.STUDENT_SOURCE) if from_source else settings.student.start
    student, is_novice = begin(
        settings.student,
        len(classes),
        start=start,
        key="student.start",
        image_size=side,
        run=stage.needs(settings.student, classes),
        tell=stage.tell,
    )
    untouched = {Network.TEACHER: deepcopy(teacher), Network.STUDENT_BEFORE: deepcopy(student)}
    if settings.adapt.method != "none":
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and replaced at once
            before = load_teacher(stage, source_teacher(settings, stage.folder), classes)
        untouched[Network.TEACHER_SOURCE] = before

    task = FourDs(
        teacher,
        student,
        teacher_stages=stage_names(settings.teacher, teacher),
        student_stages=stage_names(settings.student, student),
        config=settings.method,
        image_size=settings.data.crop_px,
        novice=is_novice,
    )
    best, step, rates = stage.fit(task, Network.STUDENT, settings.target)

    predictors: dict[str, Predictor] = {k: v.to(world.device).eval() for k, v in untouched.items()}
    adapted_teacher = task.predictors()[Network.TEACHER_ADAPTED]
    predictors |= {Network.TEACHER_ADAPTED: adapted_teacher, Network.STUDENT: student}
    target = stage.evaluate(predictors, settings.target, "test", step)
    has_source = settings.source.url is not None
    source = stage.evaluate(predictors, settings.source, "test", step) if has_source else {}
    if not world.is_main:
        return
    told = {"validation_accuracy": best.accuracy, "domain": settings.target.url}
    about = stage.about(settings.student, classes, **told)
    stage.folder.write_bytes(RunFile.STUDENT, encode_weights(student.state_dict(), about))
    adapted = {
        name: value
        for name, value in task.state_dict().items()
        if name.startswith("adapters.") or (name.startswith("teacher.") and "running_" in name)
    }
    stage.folder.write_bytes(
        RunFile.ADAPTERS, encode_weights(adapted, stage.about(settings.teacher, classes))
    )
    sizes: dict[str, int] = {name: num_parameters(net) for name, net in untouched.items()}
    sizes |= {
        Network.TEACHER_ADAPTED: sizes[Network.TEACHER] + num_parameters(task.adapters),
        Network.STUDENT: num_parameters(student),
    }
    outcome = Outcome(
        run=settings.run.name,
        lines=tuple(
            Line(display_name(network), sizes[network], source.get(network), target[network])
            for network in predictors
        ),
        chance=1 / len(classes),
        selected_epoch=best.epoch,
        validation_accuracy=best.accuracy,
        train_images_per_s=statistics.median(rates) if rates else 0.0,
        num_workers=world.size,
        selected_by=settings.distill.select,
    )
    stage.folder.write_json(RunFile.SUMMARY, outcome.as_dict())


RUN: dict[StageName, Callable[[Stage], None]] = {
    "source": train_on_source,
    "adapt": adapt_to_target,
    "distill": distil_on_target,
}
"""What each stage does."""
