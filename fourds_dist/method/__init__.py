"""The method 4Ds (arXiv 2401.06826) as modules: plain arguments in, named losses out; no Ray, no files, no network.

Reading order: `adapter`, `fusion_gate`, `phase_loss`, `losses`, `output`, `task`, `student_side`, then `fourds`, which
joins them. `supervised` is the source stage, `teacher_adaptation` the middle stage of two-stage methods,
`feature_distillation` a baseline. `config` has the keys and `presets` the methods. The networks are in
`fourds_dist.models`.
"""

from fourds_dist.method.config import MethodConfig
from fourds_dist.method.fourds import FourDs
from fourds_dist.method.output import Output
from fourds_dist.method.student_side import StudentNetwork
from fourds_dist.method.supervised import SourceClassifiers
from fourds_dist.method.task import Task
from fourds_dist.method.teacher_adaptation import AdaptConfig, AdaptTeacher
from fourds_dist.models.backbones import BackboneConfig, build_backbone

__all__ = [
    "AdaptConfig",
    "AdaptTeacher",
    "BackboneConfig",
    "FourDs",
    "MethodConfig",
    "Output",
    "SourceClassifiers",
    "StudentNetwork",
    "Task",
    "build_backbone",
]
