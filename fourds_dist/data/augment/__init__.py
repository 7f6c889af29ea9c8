"""Augmentation of training images on the device: colours, geometry, erasing, mixup and cutmix.

config      the keys data.augment.*
draws       random parameters of a batch: a pure function of (seed, step, position in the global batch)
mixing      partners of mixup and cutmix, and the share of each image
operations  operations on images, each with its own parameter per image
apply       the draws applied to a batch, on its device
"""
