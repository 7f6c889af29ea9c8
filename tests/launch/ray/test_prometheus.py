"""Metrics for Prometheus: the endpoint of a real Ray node, scraped during a worker's events."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.launch.ray import prometheus as gauges
from fourds_dist.runs.events import EpochEnded, Event, Note, StageStarted, StepLogged, TimeShares, Validation
from fourds_dist.stages.settings import Settings

CLUSTER = Path(__file__).parents[3] / "cluster"
EVENTS: list[Event] = [
    StageStarted(
        step=8, num_epochs=3, num_steps_per_epoch=32, global_batch_size=64, num_workers=1, device="CPU"
    ),
    Note(step=8, text="resumed from the checkpoint of step 8"),
    StepLogged(
        step=40,
        epoch=1.25,
        loss=2.5,
        losses={"student_ce": 0.5},
        images_per_s=123.5,
        shares=TimeShares(data_wait=0.125, host_wait=0.25, host_busy=0.75, network_wait=0.0625),
        num_bad_samples=3,
        learning_rates={"student": 0.01},
        method_values={"mix/adapter1": 0.6},
    ),
    EpochEnded(
        step=64,
        epoch=2,
        loss=2.5,
        images_per_s=123.5,
        validation={"student": Validation(0.75), "teacher_adapted": Validation(0.5)},
        num_evaluated=4,
        is_best=True,
        left_s=1.0,
    ),
]
EXPECTED = {
    "fourds_step": 40,
    "fourds_num_steps": 96,
    "fourds_epoch": 1.25,
    "fourds_images_per_s": 123.5,
    "fourds_data_wait_share": 0.125,
    "fourds_host_wait_share": 0.25,
    "fourds_host_busy_share": 0.75,
    "fourds_network_wait_share": 0.0625,
    "fourds_num_bad_samples": 3,
    'fourds_loss{loss="loss"}': 2.5,
    'fourds_loss{loss="student_ce"}': 0.5,
    'fourds_val_accuracy{network="student"}': 0.75,
    'fourds_val_accuracy{network="teacher_adapted"}': 0.5,
    "fourds_notes_total": 1,
}


@pytest.mark.ray
def test_a_worker_s_events_reach_the_metrics_port(local_ray: None) -> None:
    import ray

    from fourds_dist.launch.ray.event_channel import EventChannel

    @ray.remote(num_cpus=0)
    class Worker:
        """Stands in for a Ray Train worker, with a stage that only reports events."""

        def train(self, config: dict[str, Any]) -> str:
            from fourds_dist.launch.ray import worker

            def run_stage(name: str, settings: Settings, make_store: Any, *sinks: Any, **_: Any) -> None:
                for event in EVENTS:
                    for sink in sinks:
                        sink(event)

            worker.run_stage = run_stage
            return worker.train_worker(config).kind

    settings = Settings.model_validate(
        {"target": {"url": "x"}, "source": {"url": "y"}, "run": {"name": "seen"}}
    )
    actor: Any = EventChannel
    channel, worker = actor.remote(), Worker.remote()
    config = {"stage": "distill", "settings": settings.model_dump_json(), "channel": channel}
    assert ray.get(worker.train.remote(config), timeout=300) == "done"
    events: list[Event] = []  # the worker does not wait for the event channel
    until = time.monotonic() + 60
    while len(events) < len(EVENTS) and time.monotonic() < until:
        events += ray.get(channel.take.remote())
        time.sleep(0.1)
    assert events == EVENTS

    node = next(node for node in ray.nodes() if node["Alive"])
    found: dict[str, float] = {}
    until = time.monotonic() + 120
    while found != EXPECTED and time.monotonic() < until:
        found = scraped(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics")
        time.sleep(1)
    assert found == EXPECTED
    ray.kill(worker)
    ray.kill(channel)


def scraped(url: str) -> dict[str, float]:
    """Metrics of the run `seen`, by name and tag."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        match = re.match(r"ray_(fourds_\w+)\{(.*)\} (\S+)$", line)
        if match is None or 'run="seen"' not in match[2]:
            continue
        assert 'stage="distill"' in match[2]
        own = re.search(r'(?<![A-Za-z])(loss|network)="[^"]*"', match[2])
        found[match[1] + (f"{{{own[0]}}}" if own else "")] = float(match[3])
    return found


def test_the_dashboard_and_the_manual_name_them_all() -> None:
    names = {re.sub(r"\{.*", "", name) for name in EXPECTED}
    dashboard = json.loads((CLUSTER / "grafana.json").read_text(encoding="utf-8"))
    asked = {
        name for panel in dashboard["panels"] for target in panel.get("targets", ())
        for name in re.findall(r"ray_(fourds_\w+)", target["expr"])
    }  # fmt: skip
    manual = set(re.findall(r"`ray_(fourds_\w+)`", (CLUSTER / "README.md").read_text(encoding="utf-8")))
    assert asked == names
    assert manual == names
    assert {f"fourds_{name}" for name in gauges.GAUGES} <= names
