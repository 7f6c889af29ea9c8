"""Events go through their JSON line unchanged; truncated or edited lines hold none."""

from __future__ import annotations

import doctest
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.config.stage_names import STAGES
from fourds_dist.runs import events, failures, layout
from fourds_dist.runs.events import (
    CheckpointSaved,
    EpochEnded,
    Event,
    Note,
    StageEnded,
    StageStarted,
    StageStopped,
    StepLogged,
    TimeShares,
    Validation,
    decode,
    decode_lines,
    encode,
)
from fourds_dist.runs.failures import StopKind, StopReason

counts = st.integers(0, 10**12 - 1)
numbers = st.floats(-1e11, 1e11)
measured = st.floats()
texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
by_name = st.dictionaries(texts, measured, max_size=3)
shares = st.builds(TimeShares, measured, st.none() | measured, st.none() | measured, st.none() | measured)
validations = st.builds(Validation, measured, st.none() | measured, st.none() | measured)
reasons = st.builds(StopReason, st.sampled_from(StopKind), st.lists(counts, max_size=3).map(tuple))


def of(kind: type[Event], **fields: Any) -> st.SearchStrategy[Event]:
    return st.builds(kind, step=counts, stage=st.sampled_from(STAGES), time=numbers, **fields)


any_event = st.one_of(
    of(
        StageStarted,
        num_epochs=counts,
        num_steps_per_epoch=counts,
        global_batch_size=counts,
        num_workers=counts,
        device=texts,
    ),
    of(
        StepLogged,
        epoch=numbers,
        loss=measured,
        losses=by_name,
        images_per_s=measured,
        shares=shares,
        num_bad_samples=counts,
        learning_rates=by_name,
        method_values=by_name,
    ),
    of(
        EpochEnded,
        epoch=counts,
        loss=measured,
        images_per_s=measured,
        validation=st.dictionaries(texts, validations, max_size=3),
        num_evaluated=counts,
        is_best=st.booleans(),
        left_s=measured,
    ),
    of(CheckpointSaved, accuracies=by_name),
    of(Note, text=texts),
    of(StageStopped, reason=reasons),
    of(StageEnded, peak_memory_bytes=st.none() | counts),
)

STEP = StepLogged(
    step=20,
    stage="distill",
    time=2.5,
    epoch=1.25,
    loss=2.5,
    losses={"student_ce": 0.5},
    images_per_s=123.5,
    shares=TimeShares(0.125),
    learning_rates={"student": 0.01},
    method_values={"mix/adapter1": 0.6},
)


@given(any_event)
def test_an_event_comes_back_from_its_line_and_from_a_pickle(event: Event) -> None:
    line = encode(event)
    assert "\n" not in line
    back = decode(line)
    assert type(back) is type(event)
    assert repr(back) == repr(event)  # NaN is not equal to itself
    assert repr(pickle.loads(pickle.dumps(event))) == repr(event)


@given(any_event, st.data())
def test_a_truncated_line_holds_no_event(event: Event, data: st.DataObject) -> None:
    line = encode(event)
    assert decode(line[: data.draw(st.integers(0, len(line) - 1))]) is None
    assert decode(line + line) is None


def test_the_line_is_nested_and_begins_with_what_the_event_is() -> None:
    assert encode(STEP) == (
        '{"event": "step", "stage": "distill", "time": 2.5, "step": 20, "epoch": 1.25, "loss": 2.5, '
        '"losses": {"student_ce": 0.5}, "images_per_s": 123.5, '
        '"shares": {"data_wait": 0.125, "host_wait": null, "host_busy": null, "network_wait": null}, '
        '"num_bad_samples": 0, "learning_rates": {"student": 0.01}, "method_values": {"mix/adapter1": 0.6}}'
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("event", "steps"), ("event", ["step"]), ("event", None), ("stage", "evaluate"), ("stage", 3),
        ("stage", ["distill"]),
        ("step", [3]), ("step", -1), ("step", 2.5), ("step", True), ("step", 10**12), ("step", "3"), ("time", 1e300),
        ("time", float("nan")), ("time", "now"), ("epoch", float("inf")), ("epoch", None), ("losses", [1.0]),
        ("losses", {"a": "b"}), ("losses", {"a": True}), ("losses", {"a": {"b": 1.0}}), ("loss", None),
        ("loss", 10**400),
        ("shares", 0.5), ("shares", {}), ("shares", {"data_wait": None}), ("num_bad_samples", 0.5),
    ],
)  # fmt: skip
def test_a_line_with_another_value_than_its_field_s_holds_no_event(key: str, value: Any) -> None:
    assert decode(json.dumps(json.loads(encode(STEP)) | {key: value})) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=6,
)


@given(any_event, st.data())
def test_whatever_a_field_becomes_the_line_holds_a_whole_event_or_none(
    event: Event, data: st.DataObject
) -> None:
    values = json.loads(encode(event))
    values[data.draw(st.sampled_from(sorted(values)))] = data.draw(json_values)
    back = decode(json.dumps(values))
    assert back is None or (decode(encode(back)) is not None and repr(back))


@pytest.mark.parametrize("missing", ["event", "stage", "step", "loss", "losses", "shares"])
def test_a_line_without_a_field_holds_no_event(missing: str) -> None:
    values = json.loads(encode(STEP))
    del values[missing]
    assert decode(json.dumps(values)) is None


@pytest.mark.parametrize("line", ["", "[]", "null", "3", '"step"', "[" * 100_000, '{"step": ' + "9" * 5000])
def test_other_lines_hold_no_event(line: str) -> None:
    assert decode(line) is None


def test_a_stop_has_a_known_reason() -> None:
    stopped = StageStopped(step=7, stage="source", reason=StopReason(StopKind.PREEMPTED, (1,)))
    assert stopped.text.startswith(
        "stopped by the preemption of a node (worker 1) at step 7, with a checkpoint"
    )
    values = json.loads(encode(stopped))
    assert values["reason"] == {"kind": "preempted", "workers": [1]}
    for reason in (
        "preempted",
        {"kind": "tired", "workers": []},
        {"workers": []},
        {"kind": "sigterm", "workers": "1"},
    ):
        assert decode(json.dumps(values | {"reason": reason})) is None


def test_lines_are_read_in_order_and_others_left_out() -> None:
    note = Note(step=1, stage="source", text="a\nb")
    assert list(decode_lines(["", encode(note), "{", encode(STEP)])) == [note, STEP]


def test_a_stage_stamps_its_events() -> None:
    assert Note(step=1, text="a").stamped("adapt", 1.23456) == Note(
        step=1, text="a", stage="adapt", time=1.235
    )


@pytest.mark.parametrize("module", [events, failures, layout])
def test_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0
