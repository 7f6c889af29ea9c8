"""Decoding of images to pixels."""
