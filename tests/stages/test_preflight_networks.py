"""What is refused of networks before anything starts: each by one pass without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fourds_dist.stages.preflight import check_device
from fourds_dist.stages.preflight_networks import check_networks, smallest_part
from fourds_dist.stages.probe import text_model
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset
from tests.method import networks

NETWORKS = "tests.method.networks"


def settings(teacher: str = "convolutions", student: str = "convolutions", **more: Any) -> Settings:
    """A run of two entry points; `more` holds keys by section."""
    tree: dict[str, Any] = {
        "source": {"url": "s"},
        "target": {"url": "t"},
        "data": {"crop_px": 16, "resize_px": 16},
        "teacher": {"arch": f"{NETWORKS}:{teacher}", "stages": ("a", "b")},
        "student": {"arch": f"{NETWORKS}:{student}", "stages": ("a", "b")},
    }
    for key, value in more.items():
        section, _, name = key.partition("__")
        tree.setdefault(section, {})[name] = value
    return Settings.model_validate(tree)


@pytest.mark.parametrize(
    "student",
    ["with_idle_layer", "tied", "lazy", "looks_at_values", "frozen_but_its_head", "ends_in_log_softmax"],
)
def test_odd_networks_that_can_be_trained_pass(student: str) -> None:
    check_networks(settings(student=student), 5)


ONE_STAGE: dict[str, Any] = {"teacher__stages": ("b",), "student__stages": ("b",)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            settings(student="of_grey_images"),
            r"student: Convolutions does not take images of 16 px in three channels",
        ),
        (settings(student="two_outputs_in_training"), r"student: _InTraining returns a tuple in training"),
        (settings(teacher="two_outputs_in_training"), r"teacher: _InTraining returns a tuple in training"),
        (
            settings(student="named_logits"),
            r"student: _Named returns a SimpleNamespace instead of logits .*student\.arch",
        ),
        (settings(student="with_extra_state"), r"student: _extra_state .* is a dict, not a tensor"),
        (
            settings(teacher__stages=("a", "head")),
            r"teacher: stage 'head' returns .* instead of a feature map",
        ),
        (settings(teacher__stages=("b", "a")), r"teacher: stages b, a do not run in this order; .* a, b"),
        (settings(teacher="blind", **ONE_STAGE), r"the adapter after stage 'b' gets no gradient"),
        (
            settings(student="recurrent", teacher__stages=("a",), student__stages=("conv",)),
            r"student: stage 'conv' runs 2",
        ),
        (
            settings(student="ends_in_softmax"),
            r"student: _Ending ends in softmax in training.*student\.arch",
        ),
        (
            settings(teacher="ends_in_softmax_in_evaluation"),
            r"teacher: _Ending ends in softmax in evaluation",
        ),
        (settings(student="ends_in_sigmoid"), r"student: _Ending ends in sigmoid"),
        (settings(student="frozen"), r"student: nothing in Convolutions would train: all its .* frozen"),
        (settings(teacher="frozen"), r"teacher: nothing in Convolutions would train: all its .* frozen"),
        (
            settings(student="gives_answers", student__start="random"),
            r"student: nothing in _Ending would train: its logits have no gradient",
        ),
        (
            settings(student="of_half_precision"),
            r"student: Convolutions fails in training .* torch\.float16: make them torch\.float32",
        ),
    ],
)
def test_refused_before_the_start(given: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_networks(given, 5)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            {"arch": "convolutions", "stages": ("a",)},
            r"teacher has 2 stages .*, students\.odd 1 \('a',\); .* teacher\.stages and students\.odd\.stages",
        ),
        ({"arch": "convolutions", "stages": ("a", "c")}, r"students\.odd: .* has no submodule 'c'"),
        ({"arch": "convolutions", "stages": ("a", "head")}, r"students\.odd: stage 'head' returns"),
        ({"arch": "ends_in_softmax"}, r"students\.odd: .*; name an entry point under students\.odd\.arch"),
        (
            {"arch": "of_grey_images", "image_px": 9},
            r"students\.odd: Convolutions does not take images of 9 px .*students\.odd\.image_px",
        ),
        ({"arch": "nowhere"}, r"students\.odd: .*nowhere"),
    ],
)
@pytest.mark.parametrize("start", ["random", "source"])
def test_one_of_several_students_that_does_not_fit_is_refused_by_its_name(
    odd: dict[str, Any], message: str, start: str
) -> None:
    good = {"arch": f"{NETWORKS}:convolutions", "stages": ("a", "b"), "start": start}
    own = good | odd | {"arch": f"{NETWORKS}:{odd['arch']}", "name": "odd"}
    tree = settings().model_dump(exclude={"student", "students"}, exclude_unset=True)
    with pytest.raises(ValueError, match=message):
        check_networks(Settings.model_validate({**tree, "students": (good, own)}), 5)
    check_networks(
        Settings.model_validate({**tree, "students": (good, {**good, "stem": "imagenet", "image_px": 12})}), 5
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"teacher__arch": "vit_b_32", "teacher__image_px": 40, "teacher__stages": None},
            r"teacher: vit_b_32 splits images into patches of 32 px, and 40 is not .*; set teacher\.image_px=32$",
        ),
        (
            {"student__arch": "vit_b_32", "student__stages": None},
            r"student: vit_b_32 splits .* 32 px, and 16 is not a multiple; set data\.crop_px=32$",
        ),
        (
            {
                "student__arch": f"{NETWORKS}:vgg11_bn",
                "student__stages": ("features.7", "features.14"),
                "student__image_px": 9,
            },
            r"student: VGG does not take images of 9 px .*; change student\.image_px or student\.arch",
        ),
        (
            {"student__arch": "timm/test_vit", "student__stages": None, "student__image_px": 40},
            r"student: timm/test_vit .* 40 .*; set student\.image_px=(32|48)$",
        ),
    ],
)
def test_a_size_that_a_network_does_not_take_is_refused_by_its_key(
    keys: dict[str, Any], message: str
) -> None:
    if "timm" in str(keys):
        pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        check_networks(settings(**keys), 5)


def test_networks_of_fixed_size_are_built_for_their_own_size() -> None:
    stages = tuple(f"encoder.layers.encoder_layer_{i}" for i in range(2))
    given = settings(
        teacher="vit", teacher__image_px=24, teacher__stages=stages, student__image_px=5, data__crop_px=11
    )
    check_networks(given, 5)  # the ViT takes multiples of 8 px


def test_a_teacher_that_is_not_trained_may_give_more_in_training() -> None:
    given = settings(
        teacher="two_outputs_in_training", student__start="random", teacher__checkpoint="none.pt"
    )
    with pytest.raises(ValueError, match=r"none\.pt does not exist"):  # after the check of the outputs
        check_networks(given, 5)


def test_a_network_that_ends_in_log_softmax_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        check_networks(settings(student="ends_in_log_softmax"), 5)
    assert caplog.messages == [
        "student: _Ending ends in log_softmax; its outputs are used as logits, as softmax gives equal values for both"
    ]


def test_first_weights_that_are_not_finite_are_refused_by_name() -> None:
    given = settings(student="not_finite", data__grey_range=(0, 255))
    with pytest.raises(ValueError, match=r"student: Convolutions .* not finite in head\.weight"):
        check_networks(given, 5, list("abcde"))


def test_class_names_that_are_numbers_are_refused_beforehand() -> None:
    given = settings(
        source_stage__train="class_names",
        source_stage__text_model="local-dir:clip",
        data__grey_range=(0, 255),
    )
    with pytest.raises(ValueError, match=r"the class '0' of the source is not a word \(2 of 3"):
        check_networks(given, 3, ["0", "ant", "17"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"templates": ("a photo",)}, r"each with \{\} once"),
        ({"templates": ()}, "at least one text"),
    ],
)
def test_templates_are_checked(keys: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**{f"source_stage__{key}": value for key, value in keys.items()})


def test_a_text_model_is_asked_for_beforehand() -> None:
    with pytest.raises(ValueError, match=r"name no image-text model; set source_stage\.text_model to hf-hub"):
        check_networks(settings(source_stage__train="class_names"), 5)
    given = settings(source_stage__train="class_names", teacher__start="hf-hub:a/b")
    assert text_model(given) == "hf-hub:a/b"
    with pytest.raises(ValueError, match=r"class_names: clip\.pt name no image-text model"):
        text_model(settings(source_stage__text_model="clip.pt"))


def test_adabn_of_a_student_without_batch_norm_is_refused() -> None:
    given = settings(
        student="vit", student__stages=networks.VIT_STAGES[:2], method__preset="adabn", data__crop_px=16
    )
    with pytest.raises(
        ValueError, match=r"method\.preset=adabn .*and student, tests\.method\.networks:vit, has no"
    ):
        check_networks(given, 5)
    check_networks(settings(method__preset="adabn"), 5)


def test_networks_of_another_number_of_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "convolutions", lambda num_classes: networks.Convolutions(7))
    with pytest.raises(ValueError, match="teacher: Convolutions has 7 outputs, the data have 5"):
        check_networks(settings(), 5)


@pytest.mark.parametrize(
    ("size", "workers", "gradient_accumulation_steps", "part"),
    [(16, 1, 1, 16), (8, 2, 4, 1), (9, 1, 8, 1), (12, 5, 1, 2), (3, 2, 1, 1)],
)
def test_the_smallest_part_of_a_batch(
    size: int, workers: int, gradient_accumulation_steps: int, part: int
) -> None:
    given = settings(
        distill_stage__global_batch_size=size,
        launch__workers=workers,
        step__gradient_accumulation_steps=gradient_accumulation_steps,
    )
    assert smallest_part("distill", given) == part


@pytest.mark.parametrize(
    ("size", "workers", "gradient_accumulation_steps", "part"),
    [(16, 1, 1, 4), (16, 2, 1, 2), (16, 2, 4, 1), (20, 1, 2, 2), (16, 1, 8, 1)],
)
def test_the_smallest_part_of_a_batch_of_two_domains(
    size: int, workers: int, gradient_accumulation_steps: int, part: int, tmp_path: Path
) -> None:
    given = settings(
        source__url=write_dataset(tmp_path / "source", [6]),
        target__url=write_dataset(tmp_path / "target", [6]),
        data__source_fraction=0.25,
        method__domain_batch_norm=True,
        distill_stage__global_batch_size=size,
        launch__workers=workers,
        step__gradient_accumulation_steps=gradient_accumulation_steps,
    )
    assert smallest_part("distill", given) == part


def test_one_image_at_a_time_is_refused_where_batch_norm_cannot_do_with_it() -> None:
    check_networks(settings(distill_stage__global_batch_size=1), 5)  # maps of more than one pixel
    given = settings(distill_stage__global_batch_size=4, step__gradient_accumulation_steps=4, data__crop_px=1)
    with pytest.raises(
        ValueError,
        match=r"distill_stage\.global_batch_size=4 .*step\.gradient_accumulation_steps=4 leaves parts of one image",
    ):
        check_networks(given, 5)


@pytest.mark.parametrize(
    ("keys", "on_gpu", "message"),
    [
        ({"step__batch_norm": "synchronised"}, False, r"step\.batch_norm=synchronised needs GPUs"),
        ({"step__cuda_graph": True}, False, r"step\.cuda_graph=true works on GPUs"),
    ],
)
def test_steps_that_the_devices_cannot_take_are_refused(
    keys: dict, on_gpu: bool | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_device(settings(**keys), on_gpu=on_gpu)
    check_device(settings(), on_gpu=on_gpu)
    check_device(settings(step__batch_norm="synchronised", launch__workers=2), on_gpu=True)
