"""How an encoded image becomes the student's input: see `fourds_dist.data.preprocessing`."""

from fourds_dist.data.preprocessing import Preprocessing

__all__ = ["Preprocessing"]
