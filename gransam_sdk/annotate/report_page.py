"""The page of ``report.html``: sections from top to bottom, every word that comes from outside escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from .exporters import ClassEntry
from .failures import Failure
from .report_charts import bar, histogram, rgb, sparkline
from .report_findings import DOUBTFUL_SHOWN, EMPTY_SHOWN, ClassTally, Findings, Sight
from .report_style import STYLE

FAILURES_SHOWN = 100
"""Rows of the table of failures at most."""
_CHIPS = 6
"""Labels listed under a thumbnail at most."""


def page(
    run: Mapping[str, Any],
    classes: Sequence[ClassEntry],
    findings: Findings,
    failures: Sequence[Failure],
    failed: int,
) -> str:
    """The whole document.

    Args:
        run: The contents of ``run.json``.
        classes: The run's labels.
        findings: What the records say.
        failures: Photos that have no record, the first ``FAILURES_SHOWN``.
        failed: How many there are in all.
    """
    sections = [
        _section("classes", "Classes", _classes(classes, findings)),
        _section("scores", "Confidence and score", _scores(findings)),
        _section("doubtful", "Least certain first", _doubtful(classes, findings)),
        _section("empty", "Nothing found", _empty(classes, findings)),
        _section("failures", "Failures", _failures(failures, failed)),
        _section("times", "Time by stage", _times(run)),
        _section("model", "Model", _model(run)),
        _section("settings", "Settings", _settings(run)),
    ]
    title = f"GranSAM report: {', '.join(map(str, run.get('inputs', []))) or 'run'}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{_header(run, findings, failed)}\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _section(anchor: str, title: str, body: str) -> str:
    return f'<section id="{anchor}" aria-labelledby="h-{anchor}"><h2 id="h-{anchor}">{title}</h2>\n{body}</section>\n'


def _header(run: Mapping[str, Any], findings: Findings, failed: int) -> str:
    speed = run.get("photos_per_second")
    tiles = [
        (f"{findings.photos:,}", "photos annotated"),
        (f"{findings.masks:,}", "masks labelled"),
        (f"{findings.empty:,}", "photos with nothing found"),
        (f"{failed:,}", "photos failed"),
        *([(f"{speed:.2f}", "photos a second")] if speed else []),
    ]
    cells = "".join(f"<li><strong>{number}</strong> {what}</li>" for number, what in tiles)
    inputs = ", ".join(f"<code>{escape(str(source))}</code>" for source in run.get("inputs", []))
    model = run.get("bundle", {}).get("name", "")
    made = (
        f"Labels for {inputs or 'photos'}, made by the model <code>{escape(str(model))}</code>: look before you trust."
    )
    links = (
        ("classes", "Classes"),
        ("doubtful", "Least certain"),
        ("empty", "Nothing found"),
        ("failures", "Failures"),
        ("model", "Model"),
        ("settings", "Settings"),
    )
    jumps = " ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in links)
    return (
        f'<header>\n<h1>What was found</h1>\n<p>{made}</p>\n<ul class="tiles">{cells}</ul>\n'
        f'<nav aria-label="Sections">{jumps}</nav>\n</header>'
    )


def _classes(classes: Sequence[ClassEntry], findings: Findings) -> str:
    found = [entry for entry in classes if findings.classes[entry.id].masks]
    found.sort(key=lambda entry: (-findings.classes[entry.id].masks, entry.id))
    parts = []
    if found:
        most = findings.classes[found[0].id].masks
        rows = "".join(_class_row(entry, findings.classes[entry.id], most) for entry in found)
        parts.append(
            '<div class="scroll"><table class="classes"><thead><tr><th scope="col">Class</th>'
            '<th scope="col" class="number">Masks</th>'
            '<th scope="col"><span class="unseen">Bar</span></th><th scope="col" class="number">Photos</th>'
            f'<th scope="col">Confidence 0 to 1</th></tr></thead><tbody>{rows}</tbody></table></div>'
            '<p class="note">The line in each small histogram is the threshold; masks left of it are recorded, '
            "not labelled.</p>"
        )
    else:
        parts.append("<p>No mask reached the threshold of its class.</p>")
    absent = [entry.name for entry in classes if not findings.classes[entry.id].masks]
    if absent and found:
        parts.append(f"<p>In no photo: {', '.join(map(escape, absent))}.</p>")
    return "".join(parts)


def _class_row(entry: ClassEntry, tally: ClassTally, most: int) -> str:
    what = f"Confidence of {entry.name}: {tally.masks} labelled, threshold {entry.threshold:g}"
    return (
        f'<tr><th scope="row">{_swatch(entry)} {escape(entry.name)}</th><td class="number">{tally.masks:,}</td>'
        f'<td class="wide">{bar(tally.masks / most, entry.color)}</td><td class="number">{tally.photos:,}</td>'
        f"<td>{sparkline(tally.labelled, tally.below, entry.threshold, what)}</td></tr>"
    )


def _scores(findings: Findings) -> str:
    labelled = [sum(column) for column in zip(*(t.labelled for t in findings.classes.values()), strict=True)]
    below = [sum(column) for column in zip(*(t.below for t in findings.classes.values()), strict=True)]
    if not any(labelled) and not any(below):
        return "<p>No mask was recorded.</p>"
    charts = [
        f"<figure>{histogram(labelled, below, 'confidence')}<figcaption><b>Confidence</b>: probability of the label, "
        f'what thresholds test. <span class="key kept"></span>&nbsp;{sum(labelled):,} labelled, '
        f'<span class="key below"></span>&nbsp;{sum(below):,} below the threshold of their class.</figcaption></figure>'
    ]
    if any(findings.scores):
        charts.append(
            f"<figure>{histogram(findings.scores, [0] * len(findings.scores), 'score')}<figcaption><b>Score</b>: "
            "confidence times the model's estimate of how well the mask fits, what COCO and painting order by. "
            "Labelled masks only.</figcaption></figure>"
        )
    return f'<div class="charts">{"".join(charts)}</div>'


def _doubtful(classes: Sequence[ClassEntry], findings: Findings) -> str:
    labelled = findings.photos - findings.empty
    if not labelled:
        return "<p>No photo has a label.</p>"
    how = (
        "Photos are sorted by their least certain label: the one whose probability is least ahead of the runner-up's. "
        "Those at the top are worth a look first."
    )
    return f"<p>{how}</p>{_sheet(classes, findings.doubtful)}{_more(labelled, DOUBTFUL_SHOWN)}"


def _empty(classes: Sequence[ClassEntry], findings: Findings) -> str:
    if not findings.empty:
        return "<p>Every photo has at least one label.</p>"
    many = f"In {findings.empty:,} of {findings.photos:,} photos" if findings.photos > 1 else "In the only photo"
    names = "".join(f"<li>{escape(name)}</li>" for name in findings.empty_names)
    rest = findings.empty - len(findings.empty_names)
    names += f"<li>and {rest:,} more</li>" if rest else ""
    return (
        f"<p>{many}, nothing was found above the thresholds. That says what the model saw, not what is there. "
        "Best guesses first.</p>"
        f"{_sheet(classes, findings.closest)}{_more(findings.empty, EMPTY_SHOWN)}"
        f"<details><summary>Names of the photos</summary><ul>{names}</ul></details>"
    )


def _sheet(classes: Sequence[ClassEntry], sights: Sequence[Sight]) -> str:
    entries = {entry.id: entry for entry in classes}
    return f'<div class="sheet">{"".join(_figure(entries, sight) for sight in sights)}</div>'


def _figure(entries: Mapping[int, ClassEntry], sight: Sight) -> str:
    key, annotations = str(sight.record["image"]["file_name"]), sight.record["annotations"]
    labels = [(entries[a["category_id"]], a["confidence"]) for a in annotations]
    chips = "".join(f"<li>{_swatch(entry)} {escape(entry.name)} {p:.0%}</li>" for entry, p in labels[:_CHIPS])
    chips += f"<li>and {len(labels) - _CHIPS} more</li>" if len(labels) > _CHIPS else ""
    if sight.thumbnail is None:
        picture = '<p class="gone">The photo could not be read again.</p>'
    else:
        listed = ", ".join(f"{entry.name} {p:.0%}" for entry, p in labels) or "nothing found"
        alt = escape(f"{key}: {listed}")
        picture = f'<img alt="{alt}" loading="lazy" src="data:image/jpeg;base64,{sight.thumbnail}">'
    chips = f'<ul class="chips">{chips}</ul>' if chips else ""
    return f"<figure>{picture}<figcaption><b>{escape(key)}</b>{chips}{_doubt(sight)}</figcaption></figure>"


def _doubt(sight: Sight) -> str:
    """What the model was least sure of, or what it would have said."""
    if sight.doubt is None:
        return "<p>No mask was recorded.</p>"
    guess = f"{escape(str(sight.doubt['class']))} {sight.doubt['confidence']:.0%}"
    if not sight.record["annotations"]:
        return f"<p>Best guess: {guess}</p>"
    runner_up = sight.doubt["runner_up"]
    other = f", or {escape(str(runner_up[0][0]))} {runner_up[0][1]:.0%}" if runner_up else ""
    return f"<p>Least certain: {guess}{other}</p>"


def _failures(failures: Sequence[Failure], failed: int) -> str:
    if not failures:
        return "<p>None: every photo was read and annotated.</p>"
    rows = "".join(
        f'<tr><th scope="row">{escape(failure.key)}</th><td>{escape(failure.reason)}</td>'
        f"<td>{escape(failure.message)}</td></tr>"
        for failure in failures
    )
    more = _more(failed, len(failures), "in <code>failures.jsonl</code>")
    return (
        '<div class="scroll"><table class="failures"><thead><tr><th scope="col">Photo</th><th scope="col">Reason</th>'
        f'<th scope="col">What happened</th></tr></thead><tbody>{rows}</tbody></table></div>{more}'
        "<p>They have no labels. Running the same command again tries them once more.</p>"
    )


def _times(run: Mapping[str, Any]) -> str:
    times = {str(stage): float(seconds) for stage, seconds in run.get("timings", {}).items()}
    counts = run.get("counts", {})
    photos = counts.get("new", 0) + counts.get("redone", 0)
    if not times or not photos:
        return "<p>This run had no new photo to annotate.</p>"
    longest = max(times.values()) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(stage)}</th><td class="number">{seconds:.2f} s</td>'
        f'<td class="number">{1000 * seconds / photos:.1f} ms</td><td class="wide">{bar(seconds / longest)}</td></tr>'
        for stage, seconds in times.items()
    )
    memory = run.get("peak_memory_bytes")
    least = f" Peak memory {memory / 2**20:,.0f} MiB." if memory else ""
    return (
        '<div class="scroll"><table><thead><tr><th scope="col">Stage</th><th scope="col" class="number">In all</th>'
        '<th scope="col" class="number">A photo</th><th scope="col"><span class="unseen">Bar</span></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
        f"<p>{photos:,} photos were annotated in {run.get('seconds', 0):,.1f} s. Reading, the model and the making "
        f"of masks run beside each other, so the stages may add up to more.{least}</p>"
    )


def _model(run: Mapping[str, Any]) -> str:
    per_side = run.get("fingerprint", {}).get("points_per_side")
    grid = f" of {per_side} by {per_side} clicks" if per_side else ""
    about = (
        f"<p>The model proposes masks from a grid{grid} and labels each with one of its classes. Small things between "
        "the clicks are missed, things that touch may share a mask, and what is none of its classes may be taken for "
        "the one that looks most alike. Confidence is the model's own opinion.</p>"
    )
    facts = dict(run.get("bundle", {}))
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in facts.pop("limits", ()))
    if limits:
        about += f"<p>What its model card says it cannot do:</p><ul>{limits}</ul>"
    return about + _facts(facts)


def _settings(run: Mapping[str, Any]) -> str:
    facts = dict(run.get("settings", {}))
    fingerprint = run.get("fingerprint", {})  # holds what stood in for a setting that was left open
    facts |= {name: fingerprint[name] for name in ("points_per_side", "chunk") if name in fingerprint}
    thresholds = {f"{row['threshold']:g}" for row in run.get("classes", [])}
    alike = f"{min(thresholds)} for every class" if len(thresholds) == 1 else None
    facts["thresholds"] = alike or [f"{row['name']} {row['threshold']:g}" for row in run.get("classes", [])]
    facts["environment"] = run.get("environment", {})
    facts["limit"] = run.get("limit")
    facts["version"] = run.get("sdk_version")
    return _facts(facts)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _flat(facts))
    return f"<dl>{rows}</dl>" if rows else ""


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as (name, text) pairs: ``environment, threads``; what is not set is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            word = str(key).replace("_", " ")
            yield from _flat(inner, f"{name}, {word}" if name else word)
    elif isinstance(value, list | tuple):
        yield from _flat("; ".join(map(str, value)) or None, name)
    elif value is not None:
        yield name, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _swatch(entry: ClassEntry) -> str:
    return f'<span class="swatch" style="background:{rgb(entry.color)}"></span>'


def _more(total: int, shown: int, where: str = "not shown") -> str:
    return f'<p class="note">{total - shown:,} more {where}.</p>' if total > shown else ""
