"""Writers of the export formats.

    safetensors   weights by the network's parameter names
    torch-export  program for PyTorch, also for its C++ and AOTInductor runtimes
    onnx          program for ONNX Runtime, TensorRT, OpenVINO, CoreML's converters, ...
    int8          ONNX program with 8-bit weights and activations, calibrated on images

Programs map images (B, 3, crop_px, crop_px), float32 in [0, 1], any B, to logits (B, K); they include the
normalisation, and the resize to the student's size (image_px) if that is not crop_px. Every file has the same metadata:
architecture, classes, preprocessing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fourds_dist.data.stream.network_input import resized
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.inference.student import ABOUT, Student, network_of
from fourds_dist.io.extras import fix
from fourds_dist.models.weights.loading import encode_weights

OPSET = 18
FILES = {
    "safetensors": "student.safetensors",
    "torch-export": "student.pt2",
    "onnx": "student.onnx",
    "int8": "student.int8.onnx",
}
"""Format -> file name."""
PACKAGES: dict[str, tuple[str, ...]] = dict.fromkeys(("onnx", "int8"), ("onnx", "onnxscript", "onnxruntime"))
"""Format -> packages that the format needs beyond PyTorch."""


class DeployableNetwork(nn.Module):
    """The student's network with its resize and its normalisation: images in [0, 1] to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self._image_px = preprocessing.image_px
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std)[:, None, None], persistent=False)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        images = images if self._image_px is None else resized(images, self._image_px)
        return self.network((images - self.mean) / self.std)


class Writer:
    """Writer of one student in any format.

    Args:
        about: metadata of every file.
        calibration: returns the pixels (N, 3, H, W) uint8 that calibrate the ranges of `int8`.
    """

    def __init__(self, student: Student, about: Mapping[str, str], calibration: Callable[[], Tensor]) -> None:
        self._about = dict(about)
        self._calibration = calibration
        self._network = deepcopy(network_of(student)).cpu().eval()
        self._deployable = DeployableNetwork(self._network, student.preprocessing).eval()
        side = student.preprocessing.crop_px
        self._example = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))

    def write(self, format_: str, folder: Path) -> Path:
        """Write one format into a local folder and return its path.

        Raises:
            ValueError: a package that the format needs is missing.
        """
        path = folder / FILES[format_]
        writers = {
            "safetensors": self._safetensors,
            "torch-export": self._torch_export,
            "onnx": self._onnx,
            "int8": self._int8,
        }
        try:
            with _quiet():
                writers[format_](path)
        except ImportError as error:
            raise ValueError(f"{format_} needs {error.name}: {fix('export')}") from None
        return path

    def _safetensors(self, path: Path) -> None:
        path.write_bytes(encode_weights(self._network.state_dict(), self._about))

    def _torch_export(self, path: Path) -> None:
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(
            self._deployable, (self._example,), dynamic_shapes={"images": {0: batch}}
        )
        torch.export.save(program, str(path), extra_files={ABOUT: json.dumps(self._about)})

    def _onnx(self, path: Path) -> None:
        import onnx

        program = torch.onnx.export(
            self._deployable,
            (self._example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
        model = onnx.load(str(path))
        self._describe(model)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))

    def _int8(self, path: Path) -> None:
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        plain, prepared = path.with_suffix(".plain"), path.with_suffix(".prepared")
        try:
            self._onnx(plain)
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(path),
                _Calibration(self._calibration()),  # pyright: ignore[reportArgumentType]
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        finally:
            plain.unlink(missing_ok=True)
            prepared.unlink(missing_ok=True)
        model = onnx.load(str(path))
        self._describe(model)
        onnx.save(model, str(path))

    def _describe(self, model: Any) -> None:
        import onnx

        del model.metadata_props[:]
        onnx.helper.set_model_props(model, self._about)
        model.producer_name = "fourds_dist"


class _Calibration:
    """Calibration images, one per batch, in the interface of ONNX Runtime's `CalibrationDataReader`."""

    def __init__(self, pixels: Tensor) -> None:
        self._images: Iterator[np.ndarray] = iter((pixels.float() / 255).numpy()[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input, or None at the end."""
        image = next(self._images, None)
        return None if image is None else {"images": image}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        inputs = self.get_next()
        if inputs is None:
            raise StopIteration
        return inputs


def check_packages(formats: Iterable[str]) -> None:
    """Refuse formats whose packages are not installed.

    Raises:
        ValueError: a package is missing; the message names the format, the package and the remedy.
    """
    for format_ in formats:
        for package in PACKAGES.get(format_, ()):
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"{format_} needs {package}: {fix('export')}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' output, warnings and logs below ERROR; exceptions pass."""
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))  # PyTorch's loggers have levels of their own
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
