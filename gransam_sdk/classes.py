"""The classes that a user asks for: ``-c cat -c animals=dog,horse`` or a classes file makes a ``ClassSet``.

Softmax stays over all classes of the bundle: a group's probability is the sum of its members', and what was not asked
for still competes with what was. So does the background of a head that has a logit for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .classes_file import Color, Wish, read_classes_file
from .errors import InputError
from .shapes import Float
from .types import ClassInfo

BACKGROUND = "_background"
"""Name of explicit background's column: no class, and where it is the largest, the mask is dropped."""
_MAX_LISTED = 20  # class names in an error message


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One class as the user wants it: a class of the bundle or a group of them.

    Attributes:
        id: 1-based, in the order asked for (the bundle's own ids when all classes are asked for).
        name: Unique name in records and exports.
        members: Columns of the head's logits that count as this label.
        color: (r, g, b), 0-255.
        threshold: Confidence from which a mask of this label is trusted, in (0, 1].
    """

    id: int
    name: str
    members: tuple[int, ...]
    color: Color
    threshold: float

    def __post_init__(self) -> None:
        """Reject a threshold that no confidence can meet or miss."""
        if not 0.0 < self.threshold <= 1.0:
            what = f"threshold of class {self.name!r}"
            raise InputError(what, expected="a number above 0, up to 1", found=repr(self.threshold))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSet:
    """The labels of a run.

    Attributes:
        labels: k' labels, in the order of their ids.
        names: Names of the bundle's k classes, in the order of the head's columns.
        background: Whether the head has one more column, the last, for background.
    """

    labels: tuple[Label, ...]
    names: tuple[str, ...]
    background: bool = False

    @property
    def _columns(self) -> tuple[str, ...]:
        """Names of the head's c columns."""
        return (*self.names, BACKGROUND) if self.background else self.names

    @property
    def _rest(self) -> tuple[int, ...]:
        """The r columns of the head that no label asked for."""
        asked = {column for label in self.labels for column in label.members}
        return tuple(column for column in range(len(self._columns)) if column not in asked)

    @property
    def column_names(self) -> tuple[str, ...]:
        """k'+r names of ``group``'s columns: labels first, then what was not asked for, background last."""
        return tuple(label.name for label in self.labels) + tuple(self._columns[column] for column in self._rest)

    @property
    def thresholds(self) -> Float:
        """(k',) float32 confidence thresholds."""
        return np.array([label.threshold for label in self.labels], dtype=np.float32)

    def group(self, probabilities: Float) -> Float:
        """Sum the members' probabilities; what was not asked for keeps columns of its own.

        A mask whose largest column is one of the last r shows what nobody asked for.

        Args:
            probabilities: (n,c) float32, softmax over the head's columns.

        Returns:
            (n,k'+r) float32 in [0,1]: labels in order, then the rest in the bundle's order.

        Raises:
            InputError: There are not c columns.
        """
        if probabilities.shape[1:] != (len(self._columns),):
            found = f"shape {probabilities.shape}"
            raise InputError("class probabilities", expected=f"(n,{len(self._columns)})", found=found)
        groups = [*(label.members for label in self.labels), *((column,) for column in self._rest)]
        members = [column for group in groups for column in group]
        starts = np.cumsum([0, *map(len, groups)])[:-1]
        sums = np.add.reduceat(probabilities[:, members], starts, axis=1, dtype=np.float64)
        return np.minimum(sums, 1.0).astype(np.float32)  # of float64 sums: their order leaves no trace in it

    def to_json(self) -> list[dict[str, object]]:
        """One dictionary a label, for ``run.json`` and its fingerprint: members are names, color is [r, g, b]."""
        return [
            {
                "id": label.id,
                "name": label.name,
                "members": [self.names[column] for column in label.members],
                "color": list(label.color),
                "threshold": float(label.threshold),
            }
            for label in self.labels
        ]


def select_classes(
    classes: Sequence[ClassInfo],
    specs: Sequence[str] | None = None,
    *,
    file: Path | None = None,
    conf: float | None = None,
    class_conf: Mapping[str, float] | None = None,
    background: bool = False,
) -> ClassSet:
    """Turn what the user asked for into labels.

    Args:
        classes: The bundle's k classes in the order of the head's columns.
        specs: Each a class (``cat``) or a group (``animals=bird,cat,cow``); None asks for all classes of the bundle.
        file: A classes file (TOML, see ``docs/classes.md``) instead of ``specs``.
        conf: One threshold for all labels; wins over the file's and the bundle's.
        class_conf: Thresholds by label name; wins over everything.
        background: Whether the head's last column is background's.

    Raises:
        InputError: An unknown class, one class in two labels, two labels of one name, an empty or malformed spec, an
            unusable classes file, a threshold outside (0, 1], or a label with the name of explicit background.
    """
    if isinstance(specs, str) or (specs is not None and file is not None):
        raise InputError("classes", expected="a list of class specs, or a classes file", found=f"{specs!r}, {file}")
    if file is not None:
        wishes = read_classes_file(file)
    elif specs is not None:
        wishes = [_parse_spec(spec) for spec in specs]
    else:
        wishes = [Wish(where="bundle", name=info.name) for info in classes]
    if not wishes and (specs is not None or file is not None):
        raise InputError("classes", expected="at least one class", found="none")
    labels = _make_labels(wishes, classes, len(classes) + background)
    if background and any(label.name.casefold() == BACKGROUND for label in labels):
        expected = f"labels with other names than {BACKGROUND}, which this bundle's head has a column for"
        raise InputError("classes", expected=expected, found=f"a label {BACKGROUND}")
    if conf is not None:
        labels = [replace(label, threshold=conf) for label in labels]
    for index, threshold in _thresholds_by_label(class_conf or {}, labels, classes).items():
        labels[index] = replace(labels[index], threshold=threshold)
    return ClassSet(labels=tuple(labels), names=tuple(info.name for info in classes), background=background)


def _parse_spec(spec: str) -> Wish:
    name, is_group, members = (part.strip() for part in spec.partition("="))
    words = tuple(word.strip() for word in members.split(",")) if is_group else None
    if not name or (words and not all(words)):
        raise InputError(f"class spec {spec!r}", expected="NAME, or GROUP=NAME,NAME,...", found="an empty name")
    return Wish(where=f"class spec {spec!r}", name=name, members=words)


def _make_labels(wishes: Sequence[Wish], classes: Sequence[ClassInfo], columns_in_all: int) -> list[Label]:
    """Look the wishes up; without members a label is the class that its name means, under the bundle's name."""
    names = {info.name: column for column, info in enumerate(classes)}
    aliases = {alias: column for column, info in enumerate(classes) for alias in info.aliases}
    columns = names | aliases | names  # names come first, and win over another class's alias
    labels: list[Label] = []
    taken: dict[int, str] = {}
    for wish in wishes:
        members = tuple(_column(word, wish.where, columns) for word in wish.members or (wish.name,))
        name = classes[members[0]].name if wish.members is None else wish.name
        if any(name == label.name for label in labels):
            raise InputError(wish.where, expected="each name once", found=f"{name!r} twice")
        if _find(name, columns) not in (None, *members):
            raise InputError(wish.where, expected="a group's own name", found=f"{name!r}, a class outside the group")
        for column in members:
            if column in taken:
                found = f"{classes[column].name!r} in {taken[column]!r} and in {name!r}"
                raise InputError(wish.where, expected="each class in one label", found=found)
            taken[column] = name
        color = wish.color or classes[members[0]].color
        threshold = wish.threshold or _group_threshold(
            [classes[column].threshold for column in members], columns_in_all
        )
        labels.append(Label(id=len(labels) + 1, name=name, members=members, color=color, threshold=threshold))
    return labels


def _group_threshold(thresholds: Sequence[float], columns: int) -> float:
    """The lowest of the members' thresholds, raised by what chance alone gives a group.

    A mask that shows nothing has a probability of 1/c for each of c columns, m/c for a group of m; the threshold leaves
    the group the same share of what is above chance as the member has.
    """
    lowest, size = min(thresholds), len(thresholds)
    if size == 1 or size >= columns:
        return lowest
    return round(1.0 - (1.0 - lowest) * (columns - size) / (columns - 1), 4)


def _thresholds_by_label(
    class_conf: Mapping[str, float], labels: Sequence[Label], classes: Sequence[ClassInfo]
) -> dict[int, float]:
    """``class_conf`` by the labels' positions; a class that kept its name answers to its aliases too."""
    aliases = {info.name: info.aliases for info in classes}
    known = {label.name: index for index, label in enumerate(labels)}
    known = {alias: known[name] for name in known for alias in aliases.get(name, ())} | known
    thresholds: dict[int, float] = {}
    for key, value in class_conf.items():
        index = _find(key.strip(), known)
        if index is None or index in thresholds:
            expected = f"each class of this run once, {_nearest(key, known)}"
            found = "no such class" if index is None else f"a second value for {labels[index].name!r}"
            raise InputError(f"threshold of class {key!r}", expected=expected, found=found)
        thresholds[index] = value
    return thresholds


def _column(word: str, where: str, columns: Mapping[str, int]) -> int:
    column = _find(word, columns)
    if column is not None:
        return column
    do = "to train a new class: gransam train PICTURES -o BUNDLE"
    if "," in word:
        do = "name classes one by one (-c cat -c dog) or as a group (-c pets=cat,dog)"
    expected = f"a class of this bundle, {_nearest(word, columns)}"
    raise InputError(where, expected=expected, found=f"unknown class {word!r}", do=do)


def _find(word: str, known: Mapping[str, int]) -> int | None:
    """What a name stands for: exactly as written, else without regard to case if that leaves one meaning."""
    meanings = {index for name, index in known.items() if name.casefold() == word.casefold()}
    return known.get(word, meanings.pop() if len(meanings) == 1 else None)


def _nearest(word: str, known: Mapping[str, object]) -> str:
    """The known names that a mistyped one may have meant; if none is near, all of them."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), names, n=3)
    if near:
        return f"nearest: {', '.join(names[name] for name in near)}"
    listed = ", ".join(list(known)[:_MAX_LISTED]) or "none at all"
    return f"one of: {listed}{', ...' if len(known) > _MAX_LISTED else ''}"
