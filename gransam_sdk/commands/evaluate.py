"""``gransam eval``: how good a run's labels are, against ground truth."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .conf import Conf, parse_conf
from .streams import answer


def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder that `gransam annotate` filled.")],
    gt: Annotated[
        str,
        typer.Option(
            "--gt", metavar="voc:DIR", help="Ground truth: a folder in PASCAL VOC's layout (SegmentationClass/*.png)."
        ),
    ],
    conf: Conf = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Compare a run with ground truth: mIoU over 21 classes, and a table by class."""
    kind, _, folder = gt.partition(":")
    if kind != "voc" or not folder:
        raise InputError("--gt", expected="voc:DIR", found=repr(gt), do="put voc: before the folder's name")
    conf_all, conf_by_class = parse_conf(conf)
    if conf_all is not None and conf_by_class:
        raise InputError("--conf", expected="one threshold for all classes, or thresholds by class", found="both")

    from ..evaluation.voc import evaluate_voc

    evaluation = evaluate_voc(run, folder, conf=conf_by_class or conf_all)
    if as_json:
        answer(evaluation.to_json())
    else:
        print(evaluation.table())
