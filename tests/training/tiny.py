"""4Ds between two networks so small that a step takes milliseconds, with BatchNorm and dropout."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from fourds_dist.method import FourDs, MethodConfig, StudentNetwork

NUM_CLASSES, SIDE = 5, 8


def tiny_network(width: int, *, dropout: float = 0.0, batch_norm: bool = True) -> nn.Sequential:
    """Two stages of one convolution each, and a classifier."""

    def stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(outputs) if batch_norm else nn.GroupNorm(1, outputs)
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU())

    return nn.Sequential(
        OrderedDict(
            layer1=stage(3, width, 1),
            layer2=stage(width, 2 * width, 2),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            drop=nn.Dropout(dropout),
            fc=nn.Linear(2 * width, NUM_CLASSES),
        )
    )


def tiny_four_ds(
    *, dropout: float = 0.5, batch_norm: bool = True, student_untrained: bool = False, **method: object
) -> FourDs:
    """A pair of them under 4Ds."""
    stages = ("layer1", "layer2")
    return FourDs(
        tiny_network(8, batch_norm=batch_norm),
        tiny_network(4, dropout=dropout, batch_norm=batch_norm),
        teacher_stages=stages,
        student_stages=stages,
        config=MethodConfig.model_validate(method),
        image_size=SIDE,
        student_untrained=student_untrained,
    )


def tiny_students(
    widths: dict[str, int], *, batch_norm: bool = True, untrained: tuple[str, ...] = (), **method: object
) -> FourDs:
    """Several students of these widths, by name, of one teacher; the weights of each depend on its width alone."""
    stages = ("layer1", "layer2")
    teacher = seeded_network(8, batch_norm=batch_norm)
    return FourDs(
        teacher,
        {
            f"student/{name}" if len(widths) > 1 else "student": StudentNetwork(
                seeded_network(width, batch_norm=batch_norm), stages, name in untrained
            )
            for name, width in widths.items()
        },
        teacher_stages=stages,
        config=MethodConfig.model_validate(method),
        image_size=SIDE,
    )


def seeded_network(width: int, *, batch_norm: bool = True) -> nn.Sequential:
    """A network whose weights depend on its width alone."""
    torch.manual_seed(width)
    return tiny_network(width, batch_norm=batch_norm)
