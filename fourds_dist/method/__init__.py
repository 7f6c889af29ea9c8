"""The method 4Ds (arXiv 2401.06826) as modules: plain arguments in, named losses out; no Ray, no files, no network.

Reading order: `backbones` (networks and the names of their stages), `taps` and `maps` (stages as they run), `adapter`,
`gate`, `phase`, `losses`, `output`, then `distiller`, which puts them together; `source`, the stage before it, `adapt`,
the stage between in two-stage methods, and `hint`, both to compare with. `presets` lists the methods.
"""

from fourds_dist.method.adapt import AdaptConfig, AdaptTeacher
from fourds_dist.method.backbones import BackboneConfig, build_backbone
from fourds_dist.method.distiller import FourDs, MethodConfig
from fourds_dist.method.output import Output
from fourds_dist.method.source import SourceClassifiers

__all__ = [
    "AdaptConfig",
    "AdaptTeacher",
    "BackboneConfig",
    "FourDs",
    "MethodConfig",
    "Output",
    "SourceClassifiers",
    "build_backbone",
]
