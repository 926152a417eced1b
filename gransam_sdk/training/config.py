"""How a head is trained: every switch, its paper reading and where that comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError

Inputs = Literal["tokens", "features", "fused", "per_token"]
Background = Literal["implicit", "explicit"]
ClassReduction = Literal["sum", "mean"]
EntropyRule = Literal["top_probability", "normalised", "quantile"]
Init = Literal["default", "xavier"]

_CHOICES: dict[str, object] = {
    "inputs": Inputs,
    "background": Background,
    "class_reduction": ClassReduction,
    "entropy_rule": EntropyRule,
    "init": Init,
}
BALANCED_CLASSES = 20
"""Classes (VOC's) for which the paper's lambda 2 balances the two losses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """How a head is trained; the defaults are those of the embedded bundle.

    "The paper" is arXiv 2312.02420 with its supplement, ``PAPER`` its reading. What it leaves open is taken from W-TALC
    (Paul, Roy, Roy-Chowdhury, ECCV 2018), whose MIL formula it reuses, or is this project's reading, and says so. Not
    a switch, and ours in both: inputs are standardised by the training set's mean and deviation.

    Attributes:
        members: Heads that are trained one after the other, each with a seed of its own; what is shipped has the mean
            of their logits (ours; the paper has one).
        inputs: An instance. ``tokens``: a prompt's four mask tokens side by side (section 3.2: "m_tokens, d x 4 x 256",
            flattened to 1024). ``features``: the image encoder's features pooled under its best mask (ours). ``fused``:
            both (ours). ``per_token``: each of the tokens 1 to 3 on its own, 3·g instances of width d a picture (ours:
            a label a mask, not a prompt).
        background: ``implicit``: k logits, and background is what no mask covers (section 3.5 and the supplement's
            table 1 give the head C outputs). ``explicit``: one logit more, the last, for background; a class picture is
            labelled half class, half background, a ``_background`` picture background (section 3.1 counts C+1 classes).
        scenes: Train on scenes as well, see ``plan_scenes`` (ours): every picture in one is a bag of the clicks on it,
            and the student is to be unsure of what lies under a click on background.
        rim: From this share of its picture's rim, a mask is taken for what surrounds the object (ours; objects seldom
            lie along the rim, sky and sea do). Its instance is in no class's bag: implicit background makes it bad for
            the student, explicit background a bag of its own. A picture all of whose masks are such keeps them. More
            than 1: no such rule.
        dropout: Probability of dropping a unit before the last layer; the paper's text says 90 %.
        init: ``xavier``: Xavier-uniform weights and zero biases, as W-TALC; the paper gives none. ``default``: torch's.
        divisor: a of equation (1), unstated in the paper; 8 in W-TALC's code.
        uncertainty_weight: lambda 2 of the student's loss (0.15 in the paper, lambda 1 is 1); 0 ships the teacher.
        scale_uncertainty: Multiply lambda 2 by 20/C, C the logits: equation (4) as printed grows with C (ours).
        class_reduction: Of equation (4) over classes: ``sum``, as printed, or ``mean``, as in outlier exposure
            (Hendrycks 2019), C times weaker.
        entropy_rule: From which entropy the teacher counts as unsure; the paper gives no number.
            ``top_probability``: that of a top probability of 0.7, the paper's confidence threshold, with the rest
            uniform. ``normalised``: half of the largest, ln C. ``quantile``: the median of the training instances.
        background_weight: With implicit background, weight of the cross-entropy of ``_background`` pictures with
            uniform; 0 (the paper has no such pictures) ignores them. Explicit background makes them bags instead.
        background_batch: Background pictures a step, for that loss.
        epochs: Most passes over the pictures, for the teacher and again for the student; unstated in the paper.
        least_steps: Fewest batches of a stage, so that few pictures get more epochs (ours).
        hold_out: Share of the pictures, in tenths, kept from training to judge epochs by the accuracy of their bags; 0
            trains all epochs on all pictures. Unstated in the paper.
        patience: With a hold-out, epochs without a better accuracy after which training stops; the weights of the best
            epoch are taken, of equally good ones the last.
        batch: Photos a step; 64 in the paper's supplement.
        learning_rate: Of Adam; 1e-3 in the paper's supplement.
        weight_decay: Of Adam; none in the paper, 5e-4 in W-TALC.
        threshold: Confidence from which the bundle's user may trust a mask; the supplement's 70 % for its CLIP baseline
            is called similar to the paper's own.
        seed: Of initialisation, hold-out, order and dropout.
    """

    members: int = 4
    inputs: Inputs = "features"
    background: Background = "implicit"
    scenes: bool = True
    rim: float = 0.5
    dropout: float = 0.5
    init: Init = "default"
    divisor: int = 8
    uncertainty_weight: float = 0.15
    scale_uncertainty: bool = False
    class_reduction: ClassReduction = "sum"
    entropy_rule: EntropyRule = "top_probability"
    background_weight: float = 0.15
    background_batch: int = 16
    epochs: int = 5
    least_steps: int = 30
    hold_out: float = 0.0
    patience: int = 5
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject values outside their range."""
        for name, choice in _CHOICES.items():
            if getattr(self, name) not in get_args(choice):
                raise InputError(name, expected=" or ".join(get_args(choice)), found=repr(getattr(self, name)))
        checks = {
            "rim": self.rim > 0.0,
            "dropout": 0.0 <= self.dropout < 1.0,
            "hold_out": 0.0 <= self.hold_out < 1.0,
            "threshold": 0.0 < self.threshold <= 1.0,
            "uncertainty_weight": self.uncertainty_weight >= 0.0,
            "background_weight": self.background_weight >= 0.0,
            "weight_decay": self.weight_decay >= 0.0,
            "learning_rate": self.learning_rate > 0.0,
            "seed": self.seed >= 0 and (self.seed + 1) * self.members <= 2**63,  # two seeds of 64 bits a member
        }
        counts = ("members", "divisor", "background_batch", "epochs", "least_steps", "patience", "batch")
        checks |= {name: getattr(self, name) >= 1 for name in counts}
        for name, fine in checks.items():
            if not fine:
                raise InputError(name, expected="a value in its range", found=repr(getattr(self, name)))

    def outputs(self, classes: int) -> int:
        """Logits of a head for so many classes."""
        return classes + (self.background == "explicit")

    def student_weight(self, outputs: int) -> float:
        """lambda 2 for a head of so many logits."""
        return self.uncertainty_weight * (BALANCED_CLASSES / outputs if self.scale_uncertainty else 1.0)


PAPER = HeadConfig(
    members=1,
    inputs="tokens",
    scenes=False,
    rim=2.0,
    dropout=0.9,
    init="xavier",
    background_weight=0.0,
    epochs=30,
    least_steps=1,
    hold_out=0.1,
    threshold=0.7,
)
"""The paper's reading; ``HeadConfig`` says field by field what is the paper's and what fills its gaps."""
