"""One training step: whose gradients it leaves, that it never waits for the device, what a recorded graph shares."""

from __future__ import annotations

import copy
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch._subclasses.fake_tensor import FakeTensorMode

from fourds_dist.data.stream import batch as batch_module
from fourds_dist.data.stream.batch import Batch
from fourds_dist.method import BackboneConfig, FourDs, MethodConfig, SourceClassifiers, build_backbone
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.models import feature_hooks
from fourds_dist.training import step as step_module
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import evaluate
from fourds_dist.training.step import StepConfig, TrainStep
from fourds_dist.training.strategies.optim import OptimConfig, TaskOptimizers
from tests.ranks import run_ranks

STAGES = ("layer1", "layer2", "layer3", "layer4")
CPU = World(0, 1, torch.device("cpu"))
MEAN_STD: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def make_batch(size: int, seed: int = 0, device: str = "cpu") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator).to(device),
        labels=torch.randint(0, 5, (size,), generator=generator).to(device),
        flip=(torch.rand(size, generator=generator) < 0.5).to(device),
        keys=[""] * size,
    )


def of_two_domains(size: int, seed: int = 0, device: str = "cpu", *, num_source: int = 4) -> Batch:
    batch = make_batch(size, seed, device)
    batch.labels[: size - num_source] = -1
    return replace(batch, num_source=num_source)


def make_task(preset: str = "4ds", *, has_labels: bool = True) -> FourDs:
    torch.manual_seed(0)
    small = BackboneConfig(arch="resnet10", stem="small")
    networks = (build_backbone(small, 5) for _ in range(2))
    config = MethodConfig.model_validate({"preset": preset}).for_target(has_labels=has_labels)
    return FourDs(*networks, teacher_stages=STAGES, student_stages=STAGES, config=config, image_size=32)


def make_plain() -> SourceClassifiers:
    """A network without interaction of images: no BatchNorm."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return SourceClassifiers({"teacher": nn.Sequential(*layers)})


def gradients(task: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in task.parameters() if p.grad is not None]


# On any device


@pytest.mark.parametrize("preset", ["4ds", "4ds_released"])
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_no_value_is_read_back_from_the_device(
    preset: str, gradient_accumulation_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors without data every read (item, nonzero, a Python `if`) is an error."""
    # The constants of `normalise` are cached: none without data may remain.
    monkeypatch.setattr(batch_module, "_constants", batch_module._constants.__wrapped__)
    with FakeTensorMode():
        task = make_task(preset).train()
        step = TrainStep(
            task, CPU, StepConfig(gradient_accumulation_steps=gradient_accumulation_steps), **MEAN_STD
        )
        output = step(make_batch(4))
        with pytest.raises(RuntimeError):
            output.loss.item()  # what a read looks like
    assert len(gradients(task)) == sum(p.requires_grad for p in task.parameters())


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_no_value_is_read_back_from_the_device_without_target_labels(
    gradient_accumulation_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "_constants", batch_module._constants.__wrapped__)
    with FakeTensorMode():
        task = make_task(has_labels=False).train()
        config = StepConfig(gradient_accumulation_steps=gradient_accumulation_steps)
        step = TrainStep(task, CPU, config, **MEAN_STD)
        output = step(of_two_domains(8, num_source=4))
        assert "student_infomax" in output.losses
    assert len(gradients(task)) == sum(p.requires_grad for p in task.parameters())


def test_parts_of_a_batch_of_two_domains_have_images_of_both() -> None:
    """Cross-entropy has the same weight as in one part, and every part normalises both domains."""
    batch = of_two_domains(10)
    inputs = (batch.images, batch.labels)
    for num_parts, sizes in [(1, [(10, 4)]), (2, [(5, 2), (5, 2)]), (3, [(4, 2), (3, 1), (3, 1)])]:
        parts = step_module._parts(inputs, batch.num_source, num_parts)
        assert [(len(labels), num) for (_, labels), num in parts] == sizes
        for index, joined in enumerate(inputs):
            target = [part[index][:-num] for part, num in parts]
            source = [part[index][-num:] for part, num in parts]
            assert torch.equal(torch.cat([*target, *source]), joined)


def test_few_images_of_a_domain_make_fewer_parts() -> None:
    batch = of_two_domains(8, num_source=1)
    assert [num for _, num in step_module._parts((batch.labels,), 1, 4)] == [1]


@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_a_share_of_the_global_batch_weighs_by_its_images(gradient_accumulation_steps: int) -> None:
    config = StepConfig(gradient_accumulation_steps=gradient_accumulation_steps)
    whole, share = make_plain(), make_plain()
    TrainStep(whole, CPU, config, **MEAN_STD)(make_batch(6))
    TrainStep(share, CPU, config, **MEAN_STD, global_batch_size=8)(make_batch(6))
    for mean, weighed in zip(gradients(whole), gradients(share), strict=True):
        torch.testing.assert_close(weighed, mean * 6 / 8)


def train_a_share(rank: int, port: int, folder: str) -> None:
    """One of two ranks, of 5 and 3 images; leaves the gradients of a plain network and of 4Ds in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    batch = make_batch(8)
    part = slice(0, 5) if rank == 0 else slice(5, 8)
    tensors = [getattr(batch, name)[part] for name in ("images", "labels", "flip")]
    world, task = World(rank, 2, torch.device("cpu")), make_plain()
    step = TrainStep(task, world, StepConfig(gradient_accumulation_steps=2), **MEAN_STD, global_batch_size=8)
    step(Batch(*tensors, keys=[]))
    method = make_task().train()
    TrainStep(method, world, StepConfig(), **MEAN_STD, global_batch_size=8)(Batch(*tensors, keys=[]))
    torch.save((gradients(task), gradients(method)), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_ranks_with_unequal_shares_get_the_global_mean_gradient(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    run_ranks(train_a_share, (port, str(tmp_path)))
    whole = make_plain()
    TrainStep(whole, CPU, StepConfig(), **MEAN_STD)(make_batch(8))
    (reduced, method), (again, method_again) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for mean, x, y in zip(gradients(whole), reduced, again, strict=True):
        torch.testing.assert_close(x, mean)
        assert torch.equal(x, y)
    assert len(method) == sum(p.requires_grad for p in make_task().parameters())
    assert all(torch.equal(x, y) for x, y in zip(method, method_again, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["4ds", "4ds_released"])
def test_each_network_is_compiled_once_as_one_graph(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = {FourierAdapter: ("forward", "mix_weights"), feature_hooks: ("to_map", "from_map")}
    for owner, name in ((owner, name) for owner, names in checked.items() for name in names):
        # The check of shapes would break the graph.
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))
    compiled_graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        compiled_graphs.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    compile_network = partialmethod(nn.Module.compile, backend=backend, fullgraph=True)
    monkeypatch.setattr(nn.Module, "compile", compile_network)
    plain, compiled = make_task(preset).train(), make_task(preset).train()
    step, compiled_step = (
        TrainStep(task, CPU, StepConfig(compile=task is compiled), **MEAN_STD) for task in (plain, compiled)
    )
    for size in (4, 4, 3):  # the last batch of an epoch runs without compilation
        output, again = step(make_batch(size)), compiled_step(make_batch(size))
        torch.testing.assert_close(again.losses, output.losses, rtol=1e-4, atol=1e-6)
        for x, y in zip(gradients(compiled), gradients(plain), strict=True):
            assert float((x - y).norm()) <= 1e-3 * float(y.norm()) + 1e-6
    predictors = compiled.eval().predictors()
    evaluate(predictors, [make_batch(4)], compiled_step, CPU, num_classes=5)
    assert len(compiled_graphs) == 2


@pytest.mark.slow
def test_bfloat16_leaves_losses_and_gradients_in_float32_near_their_values() -> None:
    exact, fast = make_task().train(), make_task().train()
    expected = TrainStep(exact, CPU, StepConfig(), **MEAN_STD)(make_batch(8))
    output = TrainStep(fast, CPU, StepConfig(precision="bfloat16"), **MEAN_STD)(make_batch(8))
    for name, value in output.losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected.losses[name].item(), rel=0.05), name
    assert {g.dtype for g in gradients(fast)} == {torch.float32}


def test_a_graph_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"step\.cuda_graph=true works on GPUs, with launch\.strategy=ddp"):
        TrainStep(make_plain(), CPU, StepConfig(cuda_graph=True), **MEAN_STD)
    with pytest.raises(ValueError, match="compile does not go with activation_checkpointing"):
        StepConfig.model_validate({"compile": True, "activation_checkpointing": True})


def test_networks_without_blocks_cannot_run_them_again() -> None:
    with pytest.raises(ValueError, match=r"step\.activation_checkpointing: these networks have no lists"):
        TrainStep(make_plain(), CPU, StepConfig(activation_checkpointing=True), **MEAN_STD)


class CountedGraph:
    """Stands in for a CUDA graph on CPUs: counts captures and replays, and computes nothing."""

    captured: ClassVar[list[tuple[int, int | None]]] = []
    replayed: ClassVar[list[int]] = []

    def __init__(self, run, module, inputs, *, device, beside) -> None:
        self.size = len(inputs[0])
        self.captured.append((self.size, beside and beside.size))

    def replay(self, *inputs: Tensor) -> None:
        assert len(inputs[0]) == self.size
        self.replayed.append(self.size)


def test_the_first_two_sizes_of_a_batch_are_captured_and_others_run_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CountedGraph, "captured", [])
    monkeypatch.setattr(CountedGraph, "replayed", [])
    monkeypatch.setattr(step_module, "CudaGraphStep", CountedGraph)
    monkeypatch.setattr(TrainStep, "_why_not_captured", lambda self, inputs, num_source: None)
    task = make_plain()
    step = TrainStep(task, CPU, StepConfig(), **MEAN_STD)
    step._captures = True
    for size in (4, 4, 3, 2, 4, 3):
        step(make_batch(size))
    assert CountedGraph.captured == [(4, None), (3, 4)]
    assert CountedGraph.replayed == [4, 4, 3, 4, 3]
    assert len(gradients(task)) == 4  # the batch of two ran for real


@pytest.mark.parametrize("found", ["before", "while capturing"])
def test_a_step_that_cannot_be_captured_runs_without_a_graph_and_logs_the_reason_once(
    found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise step_module.CaptureError("teacher.3 (Peek): it waits")

    before = "teacher.3 (Peek): it waits" if found == "before" else None
    monkeypatch.setattr(step_module, "CudaGraphStep", refuse)
    monkeypatch.setattr(TrainStep, "_why_not_captured", lambda self, inputs, num_source: before)
    task = make_plain()
    step = TrainStep(task, CPU, StepConfig(), **MEAN_STD)
    step._captures = True
    for _ in range(3):
        step(make_batch(4))
    assert step.take_notes() == [
        "this step runs without a CUDA graph, slower at small batches: teacher.3 (Peek): it waits"
    ]
    assert step.take_notes() == []
    assert len(gradients(task)) == 4


# On a GPU


@pytest.fixture
def exact() -> Iterator[World]:
    """A GPU whose convolutions compute in float32 and repeat bit for bit."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield World(0, 1, torch.device("cuda", torch.cuda.current_device()))


def train(
    task: nn.Module, world: World, config: StepConfig, sizes: tuple[int, ...], make: Any = make_batch
) -> dict[str, Tensor]:
    """The task's state after a step of each size."""
    task.to(world.device).train()
    step = TrainStep(task, world, config, **MEAN_STD)
    optimizers = TaskOptimizers(task.parameter_groups(), OptimConfig(max_grad_norm=10.0), num_steps=100)  # pyright: ignore
    for seed, size in enumerate(sizes):
        step(make(size, seed, "cuda"))
        optimizers.step()
    return {name: x.double().cpu() for name, x in task.state_dict().items()}


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["4ds", "4ds_released"])
def test_replayed_steps_train_as_plain_ones_do_also_when_batches_change_their_size(
    preset: str, exact: World
) -> None:
    config = StepConfig(precision="float32", cudnn_benchmark=False)
    sizes = (8, 8, 5, 8, 3, 8, 5, 3)
    plain = train(make_task(preset), exact, config.model_copy(update={"cuda_graph": False}), sizes)
    replayed = train(make_task(preset), exact, config.model_copy(update={"cuda_graph": True}), sizes)
    for name, expected in plain.items():
        if name.endswith("num_batches_tracked"):
            assert int(replayed[name]) == int(expected) == len(sizes), name
        error = float((replayed[name] - expected).norm())
        assert error <= 1e-4 * float(expected.norm()) + 1e-6, name


@pytest.mark.gpu
@pytest.mark.parametrize("gradient_accumulation_steps", [1, 2])
def test_replayed_steps_without_target_labels_train_as_plain_ones(
    gradient_accumulation_steps: int, exact: World
) -> None:
    config = StepConfig(
        precision="float32",
        cudnn_benchmark=False,
        gradient_accumulation_steps=gradient_accumulation_steps,
    )

    def states(*, graph: bool) -> dict[str, Tensor]:
        own = config.model_copy(update={"cuda_graph": graph})
        return train(make_task(has_labels=False), exact, own, (8,) * 6, of_two_domains)

    plain, replayed = states(graph=False), states(graph=True)
    for name, expected in plain.items():
        error = float((replayed[name] - expected).norm())
        assert error <= 1e-4 * float(expected.norm()) + 1e-6, name


@pytest.mark.gpu
def test_recording_leaves_no_trace_in_the_random_state(exact: World) -> None:
    """Dropout draws the same masks, so that a resumed run equals one that never stopped."""
    config = StepConfig(precision="float32", cudnn_benchmark=False)
    states = []
    for graph in (False, True):
        task = make_plain()
        task.networks["teacher"].insert(3, nn.Dropout(0.5))  # pyright: ignore
        torch.cuda.manual_seed(7)
        states.append(train(task, exact, config.model_copy(update={"cuda_graph": graph}), (8,) * 4))
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], msg=name)


@pytest.mark.gpu
def test_threads_may_page_lock_memory_while_a_step_is_recorded(exact: World) -> None:
    stop, failures = threading.Event(), []

    def page_lock() -> None:
        size = 1
        while not stop.is_set():
            size = size * 2 % 2**22 or 1
            try:
                torch.empty(size, pin_memory=True).to(exact.device, non_blocking=True)
            except RuntimeError as error:
                failures.append(error)
                return

    thread = threading.Thread(target=page_lock)
    thread.start()
    try:
        state = train(make_task(), exact, StepConfig(cuda_graph=True, cudnn_benchmark=False), (4, 4))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert all(bool(x.isfinite().all()) for x in state.values())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("graph", [True, False])
def test_the_host_never_waits_for_the_device(graph: bool) -> None:
    world = World(0, 1, torch.device("cuda", torch.cuda.current_device()))
    task = make_task().to(world.device).train()
    step = TrainStep(task, world, StepConfig(cuda_graph=graph), **MEAN_STD)
    optimizers = TaskOptimizers(task.parameter_groups(), OptimConfig(max_grad_norm=1.0), num_steps=100)
    batches = [make_batch(8, seed, "cuda") for seed in range(4)]
    step(batches[0])  # constants, kernels and the graph are made once
    optimizers.step()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for batch in batches:
            output = step(batch)
            optimizers.step()
        with pytest.raises(RuntimeError):
            output.loss.item()  # what waiting looks like
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_the_fast_step_follows_the_float32_one() -> None:
    world = World(0, 1, torch.device("cuda", torch.cuda.current_device()))
    losses = {}
    for precision in ("float32", "auto"):
        task = copy.deepcopy(make_task()).to(world.device).train()
        step = TrainStep(task, world, StepConfig(precision=precision), **MEAN_STD)
        losses[precision] = {k: v.item() for k, v in step(make_batch(16, device="cuda")).losses.items()}
    assert losses["auto"] == pytest.approx(losses["float32"], rel=0.05, abs=0.01)
    assert losses["auto"] != losses["float32"]
