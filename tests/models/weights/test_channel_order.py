"""Networks for images in BGR: the same outputs for images in RGB, after loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fourds_dist.models.weights.channel_order import reverse_channels
from fourds_dist.models.weights.loading import load_weights
from fourds_dist.models.weights.metadata import NetworkMetadata
from fourds_dist.models.weights.metadata_check import Metadata
from tests.method.networks import Convolutions


class OfGreyImages(nn.Module):
    """Reads the mean of the channels, in a convolution of one input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Convolutions(4, num_channels=1)

    def forward(self, images: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
        return self.network((images * weights).mean(1, keepdim=True))


@pytest.mark.parametrize("metadata", ["check", "ignore"])
def test_a_network_for_bgr_gets_images_in_rgb(tmp_path: Path, metadata: Metadata) -> None:
    trained, network = Convolutions(4).eval(), Convolutions(4).eval()
    images = torch.rand(3, 3, 16, 16)
    config = "data_preprocessor = dict(to_rgb=False)\n"
    torch.save({"state_dict": trained.state_dict(), "meta": {"cfg": config}}, tmp_path / "w.pt")
    notes: list[str] = []
    load_weights(
        str(tmp_path / "w.pt"),
        network,
        what="teacher.checkpoint",
        run=NetworkMetadata(),
        metadata=metadata,
        image_size=16,
        notify=notes.append,
    )
    is_reversed = metadata == "check"
    torch.testing.assert_close(network(images), trained(images.flip(1) if is_reversed else images))
    end = "reversed the input channels of a.0.weight" if is_reversed else "ignored by teacher.metadata=ignore"
    assert [note.partition("w.pt ")[2] for note in notes] == [
        f"was trained on images in BGR, and the run reads RGB; {end}"
    ]


def test_channels_that_no_layer_reads_cannot_be_reversed() -> None:
    network = OfGreyImages()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match="no convolution of the network reads the three channels"):
        reverse_channels(network, 16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
