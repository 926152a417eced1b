"""The options of ``gransam annotate``, in the order of its help."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Inputs: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT", help="Photos, folders (searched through), globs, list files, or - for a list on stdin."
    ),
]
Out: TypeAlias = Annotated[str, typer.Option("--out", "-o", metavar="RUN", help="Run folder; an earlier run goes on.")]
Bundle: TypeAlias = Annotated[str, typer.Option("--bundle", metavar="NAME|DIR", help="Model bundle.")]
Classes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        "-c",
        metavar="SPEC",
        help="A class (cat), a group (pets=cat,dog) or a classes file (*.toml). May be repeated; all classes of the "
        "bundle by default.",
    ),
]
ClassesFile: TypeAlias = Annotated[
    str | None, typer.Option("--classes-file", metavar="FILE", help="Classes file in TOML, under any name.")
]
Formats: TypeAlias = Annotated[
    str, typer.Option("--to", metavar="FORMATS", help="Exports, comma-separated: coco, voc.")
]
Overlays: TypeAlias = Annotated[bool, typer.Option("--overlays", help="Also paint the masks over the photos.")]
Report: TypeAlias = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html.")]
PointsPerSide: TypeAlias = Annotated[
    int | None, typer.Option("--points-per-side", metavar="N", help="Side of the click grid; the bundle's by default.")
]
Choice: TypeAlias = Annotated[
    str,
    typer.Option(
        "--mask-choice", metavar="RULE", help="Which of a click's masks: best_iou, single, whole, stable or all3."
    ),
]
PredIouThresh: TypeAlias = Annotated[
    float, typer.Option("--pred-iou-thresh", metavar="P", help="Masks of lower predicted IoU go; 0: none.")
]
StabilityScoreThresh: TypeAlias = Annotated[
    float, typer.Option("--stability-score-thresh", metavar="P", help="Masks of lower stability score go; 0: none.")
]
NmsIou: TypeAlias = Annotated[
    float, typer.Option("--nms-iou", metavar="P", help="Mask IoU above which the lower-scored mask goes; 1: never.")
]
Containment: TypeAlias = Annotated[
    float,
    typer.Option(
        "--containment", metavar="P", help="Share inside a larger mask of its class above which a mask goes; 1: never."
    ),
]
JoinFragments: TypeAlias = Annotated[
    bool, typer.Option("--join-fragments", help="Join touching masks of one class into one annotation.")
]
DecodeToScale: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--decode-to-scale", help="Decode large JPEGs no finer than the model needs: faster, slightly different masks."
    ),
]
Limit: TypeAlias = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N photos.")]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
Device: TypeAlias = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Backend: TypeAlias = Annotated[
    str,
    typer.Option("--backend", metavar="NAME", help="auto (onnxruntime), onnxruntime, openvino or openvino-bf16."),
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads; all that may be used by default.")
]
AtOnce: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--at-once",
        metavar="N",
        min=1,
        help="Photos in the model at a time; a small one takes one a thread by default.",
    ),
]
MaxFailures: TypeAlias = Annotated[
    int | None, typer.Option("--max-failures", metavar="N", min=0, help="Stop when more than N photos have failed.")
]
Follow: TypeAlias = Annotated[bool, typer.Option("--follow", help="Follow links that leave the input folder.")]
Scale16: TypeAlias = Annotated[bool, typer.Option("--scale16", help="Read 16-bit grey photos, scaled to 8 bits.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the run's report as one JSON object.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No narration; errors are still printed.")]
Progress: TypeAlias = Annotated[
    str, typer.Option("--progress", metavar="HOW", help="auto (a bar on a terminal, else plain), plain or none.")
]
