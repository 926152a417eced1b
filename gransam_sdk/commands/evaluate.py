"""``gransam eval``: how good a run's labels are, against ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .conf import Conf, parse_conf
from .streams import answer

if TYPE_CHECKING:
    from ..evaluation.coco import CocoEvaluation
    from ..evaluation.outcome import Evaluation


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder that `gransam annotate` filled.")],
    gt: Annotated[
        str,
        typer.Option(
            "--gt",
            metavar="voc:DIR|coco:DIR",
            help="Ground truth: a folder in PASCAL VOC's layout (SegmentationClass/*.png), or one with COCO's "
            "instances.json in it.",
        ),
    ],
    conf: Conf = None,
    super_classes: Annotated[
        bool,
        typer.Option(
            "--super",
            help="With voc: evaluate animals, furniture, household items, person and transportation instead of the 20 "
            "classes.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Compare a run with ground truth: mIoU with a table by class; with COCO's also average precision."""
    kind, _, folder = gt.partition(":")
    if kind not in ("voc", "coco") or not folder:
        raise InputError(
            "--gt", expected="voc:DIR or coco:DIR", found=repr(gt), do="put voc: or coco: before the folder's name"
        )
    if super_classes and kind != "voc":
        raise InputError("--super", expected="--gt voc:DIR", found=f"--gt {gt}")
    conf_all, conf_by_class = parse_conf(conf)
    if conf_all is not None and conf_by_class:
        raise InputError("--conf", expected="one threshold for all classes, or thresholds by class", found="both")
    evaluation = _evaluate(kind, run, folder, conf_by_class or conf_all, super_classes)
    if as_json:
        answer(evaluation.to_json())
    else:
        print(evaluation.table())


def _evaluate(
    kind: str, run: str, folder: str, conf: float | dict[str, float] | None, super_classes: bool
) -> Evaluation | CocoEvaluation:
    if kind == "coco":
        from ..evaluation.coco import evaluate_coco

        return evaluate_coco(run, folder, conf=conf)
    from ..evaluation.voc import evaluate_voc

    return evaluate_voc(run, folder, conf=conf, super_classes=super_classes)
