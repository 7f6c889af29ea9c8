"""Named settings of the method. A preset fills the keys of `method` that the user leaves out.

| preset          | what it is                                                                                      |
|-----------------|-------------------------------------------------------------------------------------------------|
| `mended`        | ours, the default                                                                               |
| `authors`       | 4Ds as released, mistakes included, for fair comparison and for the fixture that checks us      |
| `cross_entropy` | the student alone, from target labels; with `student.start: source` the fine-tuned student      |
| `distillation`  | plain distillation from the teacher as it is (arXiv 1503.02531); `teacher_batch_norm` chooses   |
| `hint`          | distillation and feature hints (FitNets, arXiv 1412.6550)                                       |

Two-stage methods are `adapt.method: fine_tune` or `mcc` followed by `distillation`. A part left out is a key changed:
`adapters: false`, `phase_loss: none`, `trust: all`, `teacher_batch_norm: frozen`, `apprenticeship: 0`,
`balance: never`.

Why `mended` is what it is: icons
---------------------------------
`configs/compare/icons.yaml`: six pairs of drawing styles at 64 px, ResNet34 -> ResNet18, the student from the source,
10 labels a class (few) or all; test designers are in no training split. `mended` less the other, in points of test
accuracy, with its 95 % interval over (pairs x seeds), for these pairs; the first two rows on H100s, the next two on
H200s, the rest there with seed 0:

| `mended`, at 73.6 (few) and 76.1 (all), less         | few                     | all                     |
|------------------------------------------------------|-------------------------|-------------------------|
| trust: better, its trust before                      | +0.6 [+0.0, +1.2] of 18 | +0.4 [-0.2, +1.0] of 14 |
| trust: right                                         | -0.3 [-0.7, +0.2] of 18 | the same                |
| authors, whose trust is `all`                        | +0.0 [-0.6, +0.7] of 18 | -0.1 [-0.5, +0.3] of 18 |
| cross-entropy                                        | +2.5 [+1.9, +3.2] of 18 | +1.4 [+0.7, +2.0] of 18 |
| trust: all                                           | +0.3 [-0.8, +1.4] of 6  | +0.3 [-0.4, +1.1] of 6  |
| distilled from teacher and averaged student together | +0.3 [-0.7, +1.3] of 6  | +0.2 [-0.3, +0.6] of 6  |
| every image mixed with another (up to one half)      | +1.4 [-0.0, +2.9] of 6  | +0.8 [-0.5, +2.1] of 6  |

The last two were not kept, nor was distilling in the measure of (teacher's accuracy / student's)^8, at most 1 (+0.1 and
+0.5; digits -0.2 twice). Validation, whose designers are those of training, ranks `authors` otherwise (+0.3 [+0.1,
+0.5] and +0.5 [+0.2, +0.8]). What is soft in the teacher's answers is worth learning for strangers' drawings, also
where the student has long been told the label; so on labelled images the student's own certainty does not count.

Not kept either: giving the student each image with a part, up to all, of another image's amplitude (arXiv 2105.11120):
-1.5 [-3.5, +0.6] of 4, of half of the images -0.5 [-2.2, +1.2] (line to solid and back, 16 px, ResNet10s, few labels,
seeds 0 and 1, 8 epochs, CPU; authors there -0.5 [-1.2, +0.2]).

Its parts, on three of the pairs (glyph to line, line to solid, solid to glyph), seed 0, H200, few and all together: the
loss by leaving one out or changing it, in points of test accuracy, 6 cells:

| left out or changed                                          | costs             |
|--------------------------------------------------------------|-------------------|
| no adapters                                                  | 2.5 [1.6, 3.4]    |
| trust: all                                                   | 0.2 [-0.5, 0.9]   |
| adapters do not learn from the student                       | 0.1 [-0.3, 0.4]   |
| adapters begin with 5 % of their own amplitude, not one half | 0.4 [-0.3, 1.0]   |
| adapters' learning rate 5e-3                                 | 0.5 [-0.9, 1.9]   |
| adapters' means with their sign                              | 0.7 [-0.1, 1.5]   |
| the teacher's last layer learns too                          | 0.6 [-0.5, 1.7]   |
| the teacher's BatchNorm weights learn too                    | 0.2 [-0.3, 0.7]   |
| class confusion of the teacher on unlabelled images          | 0.0 [-0.3, 0.3]   |
| hints at all stages besides                                  | 0.5 [-0.1, 1.0]   |
| phase loss at weight 1, 5                                    | 0.6, 2.2          |
| temperature 2                                                | 0.5 [-0.7, 1.7]   |

So adapters earn their keep, and what lets the teacher learn more (with BatchNorm weights it is 1.1 points better) gains
the student nothing.

Apprentices, here from random weights (ImageNet's know the classes as little): all six pairs, three seeds, H200, are in
README (`mended` 70.0 and 71.3, authors 61.5 and 63.6, fine_tune then distillation 70.1 and 73.7). What led there, on
the same three pairs, seed 0, H200, at distillation weight 1 but where told:

|                                                         | few  | all  |
|---------------------------------------------------------|------|------|
| without apprenticeship                                  | 59.0 | 63.9 |
| the adapters do not learn from the student              | 62.9 | 65.9 |
| trust: all                                              | 62.9 | 66.2 |
| both                                                    | 66.1 | 68.1 |
| apprenticeship: 4                                       | 63.7 | 67.2 |
| apprenticeship: 16, the default                         | 65.7 | 67.5 |
| that with phase loss at weight 1, or hints (with 4)     | 64.4 | 66.7 |
| apprenticeship: 16, weight 4                            | 69.4 | 71.2 |
| apprenticeship: 8, weight 8                             | 70.9 | 70.8 |
| `mended`: apprenticeship: 16, balance: novices, 5.1     | 70.5 | 71.6 |
| that for 22 epochs, as long as two stages               | 70.5 | 73.5 |
| that as an apprentice to the end                        | 70.8 | 71.0 |
| adapters' learning rate 5e-3                            | 70.7 | 71.5 |
| the teacher's BatchNorm weights learn too               | 71.0 | 71.6 |
| both (validation +1.3 and +1.1, teacher +1.4 and +2.3)  | 71.0 | 71.9 |
| fine_tune, then distillation with balance               | 70.3 | 73.2 |

A student that knows nothing yet makes adapters that learn from it forget, and surer than its teacher it is of nothing.
At temperature 4 and 225 classes the gradient of distillation is many times smaller than cross-entropy's, with 10
classes it is not: there weights of 4 and 8 fall apart (digits to digits over photographs and back, 16 px, 10 labels a
class, 5 epochs, from scratch, seeds 0 and 1, apprenticeship 8, CPU: 66.2 and under 20, where weight 1 has 80.4, and
74.9 without apprenticeship). `losses.balance` says how loud a sure teacher is among so many classes: the weight that
makes it half as loud as a label is 5.1 for 225 and 0.75 for 10. On digits `balance: novices` changes nothing that shows
(apprenticeship 16: 79.9 for 80.5 at weight 1 with few labels, 95.1 for 94.5 with all, differences -0.6 [-4.1, +3.0] and
+0.6 [-0.7, +1.8]).

Students from the source are no novices, and do not gain: the same three pairs, seed 0, `mended` 74.5 and 76.5, with
balance: always 74.5 and 76.0, that with trust: all 73.4 and 74.7. So a loud teacher needs trust.

Why `mended` is what it is: digits
----------------------------------
Where the teacher is much worse than the student can become: `configs/compare/digits-over-photographs.yaml`, ResNet18 ->
ResNet10 from the source, five seeds, H200. `mended` less the other:

| `mended`, at 79.9 (few) and 95.6 (all), less         | few                     | all                     |
|------------------------------------------------------|-------------------------|-------------------------|
| authors                                              | +5.4 [+2.0, +8.8]       | +2.6 [+1.2, +4.0]       |
| cross-entropy                                        | +10.5 [+5.2, +15.9]     | -0.6 [-1.1, -0.2]       |
| distilled from teacher and averaged student together | +3.1 [+2.1, +4.2]       | +2.3 [-0.2, +4.7]       |
| every image mixed with another (up to one half)      | +9.2 [+2.8, +15.7]      | +1.7 [+1.0, +2.4]       |

At 16 px on CPUs, few labels, 3 epochs, seeds 0 to 2: `surer` 68.9, `better` 68.3, authors 65.3, cross-entropy 64.3.

MNIST to MNIST over photographs, where the teacher knows 23 to 41 % of the target:
`configs/compare/mnist-over-photographs.yaml` as it says for two cores, 1,000 labels, seeds 0 to 2, from the source and
from scratch: `mended` 88.2 and 80.7, cross-entropy 88.8 and 80.7, two stages 85.9 and 81.0 (fine_tune), authors 84.0
and 76.4, distillation 70.1 and 65.6. The adapted teacher, at 67 to 68 %, no longer drags the student down.

Earlier trials, with trust `right` and `better` and, unless told, without phase loss: accuracies in percent on 2,152
held-out target images, mean of seeds 0 to 2, last of 160 steps, on CPUs. Source: the digits of
`data/sources/digits.py` at 32 px. Target: these over photographs, or half so (0.4 digit + 0.6 photograph).
ResNets of width 16, two basic blocks a stage (teacher) and one (student); batch 64, of which 16 labelled where few are;
SGD at 0.02 (from random: 0.05) with a cosine, the rest as by default. Standard deviations over seeds are 1 to 3;
differences are paired, with their standard error. Small networks, one kind of images: enough to choose defaults by, no
claim beyond.

| target, labels a class, student's start | cross_entropy | distillation, BN adapt | trust: right | trust: better |
|---|---|---|---|---|
| half, 2, source                         | 76.5          | 76.7                   | 80.5         | 82.7          |
| photographs, 2, source                  | 43.4          | -                      | 56.5         | 59.2          |
| photographs, 10, source                 | 75.4          | 58.2 (2 seeds)         | 73.2         | 76.6          |
| photographs, all, random                | 90.5          | -                      | 92.4         | 92.1          |

With phase loss and `better`: 82.7 in row 1, `authors` 79.4 (2 seeds; 82.1 on the same).

trust           `better` over `right`: +2.3 (0.7), +2.7 (0.3), +3.4 (1.2), -0.4 (0.4), and over cross-entropy alone on
                every row, also where the teacher stays far behind the student (row 3: 53.2, with adapters). `right`,
                and no trust more so (one seed of row 3: 69.5, released 68.7), drag the student down there.
adapters        row 3, one seed, trust `right`: 72.1 with them, 59.1 without. The adapted teacher itself: 77.0 against
                74.9 by BatchNorm alone (row 1).
BatchNorm       `adapt`, as released: alone it takes the teacher from 60.6 to 74.9 (row 1).
phase loss      no gain: 82.7 with it and without (row 1, difference 0.0, error 0.1). At the first step its gradient on
                the student, weighted, is 1.3% of cross-entropy's, and 0.04% as released. At weight 1 it neither gains
                (82.0 for 82.4, one seed, channels matched by learnt 1x1 convolutions, since channel i of one network
                has nothing to do with channel i of the other: the distance starts at 0.94 of 1 for unrelated maps),
                nor weighted by energy, nor on maps of energy (71.5, 71.4 for 72.1; row 3, one seed, trust `right`).
                The last stage's maps are 2 x 2 here, and their phases mere signs: larger images may tell more. Until
                then it stays at 0.1, the paper's weight; `phase_loss: none` saves a fifth of a step on a CPU.
gate            none. The released gate is nearly constant, and a gate by energy (each channel in the measure of the
                deviation of the teacher's map) changed nothing beyond noise: 71.5 where 72.1 stood without any phase
                loss (row 3, one seed).
not taken up    trust on the teacher's side as well (82.8 for 82.7, row 1); class confusion on unlabelled images in the
                teacher or both (71.9, 72.4 for 72.1; row 3, one seed).
"""

from __future__ import annotations

from typing import Any

_WITHOUT_4DS: dict[str, Any] = {"adapters": False, "phase_loss": "none", "trust": "all"}

PRESETS: dict[str, dict[str, Any]] = {
    "mended": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "circular",
        "trust": "surer",
        "apprenticeship": 16.0,
        "balance": "novices",
    },
    "authors": {
        "teacher_batch_norm": "adapt",
        "phase_loss": "squared",
        "trust": "all",
    },
    "cross_entropy": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "distillation_weight": 0.0},
    "distillation": _WITHOUT_4DS | {"teacher_batch_norm": "frozen"},
    "hint": _WITHOUT_4DS | {"teacher_batch_norm": "frozen", "hint": "all"},
}
