"""The method 4Ds (arXiv 2401.06826) as modules: plain arguments in, named losses out; no Ray, no files, no network.

Reading order: `backbones` (networks and their stages), `adapter`, `gate`, `phase`, `losses`, then `distiller`, which
puts them together, and `source`, the stage before it.
"""

from fourds_dist.method.backbones import BackboneConfig, build_backbone
from fourds_dist.method.distiller import FourDs, MethodConfig, Output
from fourds_dist.method.source import SourceClassifiers

__all__ = ["BackboneConfig", "FourDs", "MethodConfig", "Output", "SourceClassifiers", "build_backbone"]
