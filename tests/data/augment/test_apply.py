"""The augmentation of a batch equals that of each image alone, and mixing equals torchvision's."""

from __future__ import annotations

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import CutMix, MixUp
from torchvision.transforms.v2 import functional as F

from fourds_dist.data.augment.config import AugmentConfig
from fourds_dist.data.augment.draws import Draws
from fourds_dist.data.augment.mixing import Mix
from fourds_dist.data.augment.operations import Operation, operate
from fourds_dist.data.stream.batch import Batch, augmented
from tests.data.augment.test_draws import ALL, drawn

NUM, SIDE = 8, 32
FILL = (0.485, 0.456, 0.406)


def batch(draws: Draws | None) -> Batch:
    random = torch.Generator().manual_seed(0)
    return Batch(
        torch.randint(0, 256, (NUM, 3, SIDE, SIDE), dtype=torch.uint8, generator=random),
        torch.arange(NUM) - 1,
        torch.arange(NUM) % 3 == 0,
        [""] * NUM,
        draws,
    )


def draws_of(config: AugmentConfig, mix: Mix | None = None, partners: np.ndarray | None = None) -> Draws:
    images = drawn(config, NUM)
    if partners is not None:
        images.partners[:] = partners
    return Draws.of(images, config, mix)


def test_every_image_gets_its_flip_operations_and_erasing() -> None:
    images, before = drawn(ALL, NUM), batch(None)
    after = augmented(batch(Draws.of(images, ALL, None)), fill=FILL)
    for i in range(NUM):
        image = before.images[i]
        image = F.horizontal_flip(image) if before.flip[i] else image
        for operation, parameters in zip(images.operations[i].tolist(), images.parameters[i], strict=True):
            image = operate(Operation(operation), image[None], torch.from_numpy(parameters)[None])[0]
        top, left, height, width = images.erased[i].tolist()
        colour = torch.tensor([round(255 * x) for x in FILL], dtype=torch.uint8)[:, None, None]
        if height * width:
            image = F.erase(image, top, left, height, width, colour)
        assert torch.equal(after.images[i], image)
    assert (images.erased.prod(1) > 0).any()
    assert not after.flip.any()
    assert (after.draws, after.mixed) == (None, None)
    assert after.images.dtype == torch.uint8


def test_a_batch_without_draws_is_the_same_object() -> None:
    plain = batch(None)
    assert augmented(plain, fill=FILL) is plain


def test_mixup_and_cutmix_equal_torchvision_s() -> None:
    """torchvision's partner is the image before, of the whole batch."""
    partners = np.roll(np.arange(NUM), 1)
    before = batch(None)
    flipped = torch.where(before.flip[:, None, None, None], before.images.flip(-1), before.images)
    params = {"labels": before.labels, "batch_size": NUM}
    config = AugmentConfig(mixup_alpha=1.0)
    mixed = augmented(batch(draws_of(config, Mix(0.3), partners)), fill=FILL)
    expected = MixUp().transform(flipped.float(), params | {"lam": 0.3})
    assert torch.equal(mixed.images, expected.round().to(torch.uint8))
    cut = augmented(batch(draws_of(config, Mix(0.75, (4, 20, 8, 24)), partners)), fill=FILL)
    assert torch.equal(cut.images, CutMix().transform(flipped, params | {"box": (8, 4, 24, 20)}))
    for found, share in ((mixed, 0.3), (cut, 0.75)):
        assert found.mixed is not None
        assert torch.equal(found.labels, before.labels)
        assert torch.equal(found.mixed[0], before.labels.roll(1))
        assert torch.equal(found.mixed[1], torch.full((NUM,), share))


def test_a_batch_that_is_not_mixed_has_the_share_1() -> None:
    config = AugmentConfig(mixup_alpha=1.0)
    found = augmented(batch(draws_of(config, Mix(1.0))), fill=FILL)
    assert found.mixed is not None
    assert (found.mixed[1] == 1).all()


def test_no_value_is_read_back_from_the_device() -> None:
    draws = draws_of(ALL, Mix(0.3, (4, 20, 8, 24)))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = batch(None).mapped(mode.from_tensor)
        after = augmented(
            Batch(fake.images, fake.labels, fake.flip, fake.keys, draws.mapped(mode.from_tensor)), fill=FILL
        )
    assert after.images.shape == (NUM, 3, SIDE, SIDE)
