"""The default observer of a run: takes every event, stops nothing, and lets the run show its progress."""

from __future__ import annotations

from fourds_dist.launch.observer import RunObserver
from fourds_dist.runs.events import Event, Note


def test_nobody_observes_by_default() -> None:
    observer = RunObserver()
    observer.sink(Note(step=1, text="lost"))
    assert observer.stop_reason() is None
    assert not observer.is_quiet


def test_an_observer_gets_the_events_themselves() -> None:
    events: list[Event] = []
    note = Note(step=3, text="kept")
    RunObserver(sink=events.append).sink(note)
    assert events == [note]
