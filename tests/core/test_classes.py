"""What ``-c``, a classes file and thresholds mean; a mistake is an error that names what is wrong and what is near."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gransam_sdk.classes import ClassSet, Label, select_classes
from gransam_sdk.errors import InputError
from gransam_sdk.types import ClassInfo

BUNDLE = (
    ClassInfo(id=1, name="bird", color=(1, 1, 1), threshold=0.6),
    ClassInfo(id=2, name="cat", aliases=("kitten", "house cat"), color=(2, 2, 2), threshold=0.5),
    ClassInfo(id=3, name="cow", color=(3, 3, 3), threshold=0.4),
    ClassInfo(id=4, name="motorbike", aliases=("motorcycle",), color=(4, 4, 4), threshold=0.3),
    ClassInfo(id=5, name="tvmonitor", aliases=("TV",), color=(5, 5, 5), threshold=0.8),
)


def brief(chosen: ClassSet) -> list[tuple[int, str, tuple[int, ...]]]:
    return [(label.id, label.name, label.members) for label in chosen.labels]


def file_of(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "classes.toml"
    file.write_text(text, encoding="utf-8")
    return file


def message(*args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        select_classes(*args, **kwargs)
    return str(caught.value)


def test_all_classes_by_default() -> None:
    chosen = select_classes(BUNDLE)
    assert [(label.id, label.name) for label in chosen.labels] == [(info.id, info.name) for info in BUNDLE]
    assert chosen.labels[3] == Label(id=4, name="motorbike", members=(3,), color=(4, 4, 4), threshold=0.3)
    assert chosen.column_names == chosen.names == ("bird", "cat", "cow", "motorbike", "tvmonitor")
    np.testing.assert_array_equal(chosen.thresholds, np.array([0.6, 0.5, 0.4, 0.3, 0.8], dtype=np.float32))
    assert chosen.thresholds.dtype == np.float32


def test_a_bundle_without_classes_has_no_labels() -> None:
    chosen = select_classes(())
    assert chosen.labels == () and chosen.column_names == ()
    assert chosen.thresholds.shape == (0,)
    assert chosen.group(np.zeros((3, 0), dtype=np.float32)).shape == (3, 0)
    assert "none at all" in message((), ["cat"])


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        (["cat"], [(1, "cat", (1,))]),
        (["cow", "bird"], [(1, "cow", (2,)), (2, "bird", (0,))]),
        (["  cat "], [(1, "cat", (1,))]),
        (["CAT"], [(1, "cat", (1,))]),
        (["motorcycle"], [(1, "motorbike", (3,))]),
        (["House Cat"], [(1, "cat", (1,))]),
        (["tv"], [(1, "tvmonitor", (4,))]),
        (["animals=bird,cat,cow"], [(1, "animals", (0, 1, 2))]),
        ([" farm animals = cow , BIRD "], [(1, "farm animals", (2, 0))]),
        (["moto=motorbike"], [(1, "moto", (3,))]),
        (["motorcycle=motorbike"], [(1, "motorcycle", (3,))]),
        (["cat=cat,cow", "bird"], [(1, "cat", (1, 2)), (2, "bird", (0,))]),
    ],
)
def test_specs(specs: list[str], expected: list[tuple[int, str, tuple[int, ...]]]) -> None:
    assert brief(select_classes(BUNDLE, specs)) == expected


def test_exact_names_win_over_other_cases_and_aliases() -> None:
    bundle = (
        ClassInfo(id=1, name="TV"),
        ClassInfo(id=2, name="tv"),
        ClassInfo(id=3, name="screen", aliases=("TV", "display")),
    )
    assert brief(select_classes(bundle)) == [(1, "TV", (0,)), (2, "tv", (1,)), (3, "screen", (2,))]
    assert brief(select_classes(bundle, ["tv"])) == [(1, "tv", (1,))]
    assert "unknown class 'Tv'" in message(bundle, ["Tv"])


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([], ["at least one class"]),
        ("cat", ["a list of class specs", "'cat'"]),
        ([""], ["an empty name"]),
        (["  "], ["an empty name"]),
        (["=cat"], ["an empty name"]),
        (["animals="], ["an empty name", "GROUP=NAME,NAME"]),
        (["animals=cat,,cow"], ["an empty name"]),
        (["cats=kat"], ["cats=kat", "unknown class 'kat'", "nearest: cat", "gransam train PICTURES -o BUNDLE"]),
        (["motorbicycle"], ["unknown class 'motorbicycle'", "motorcycle", "motorbike"]),
        (["zzz"], ["one of: bird, cat, cow, motorbike, tvmonitor", "gransam train PICTURES -o BUNDLE"]),
        (["cat,cow"], ["-c cat -c dog"]),
        (["cat", "cat"], ["'cat' twice"]),
        (["cat", "kitten"], ["'cat' twice"]),
        (["a=cat", "a=cow"], ["'a' twice"]),
        (["a=cat", "b=cow,cat"], ["'cat' in 'a' and in 'b'"]),
        (["a=cat,kitten"], ["'cat' in 'a' and in 'a'"]),
        (["cow=cat"], ["'cow', a class outside the group"]),
        (["Motorcycle=cat"], ["'Motorcycle', a class outside the group"]),
    ],
)
def test_specs_that_mean_nothing_are_refused(specs: Any, words: list[str]) -> None:
    text = message(BUNDLE, specs)
    assert [word for word in words if word not in text] == []


def test_a_long_list_of_classes_is_cut() -> None:
    bundle = tuple(ClassInfo(id=i + 1, name=f"class {i}") for i in range(50))
    text = message(bundle, ["zzz"])
    assert "class 19, ..." in text and "class 20" not in text


def test_probabilities_of_groups_add_up_and_the_rest_competes() -> None:
    chosen = select_classes(BUNDLE, ["pets=cat,bird", "tvmonitor"])
    assert chosen.column_names == ("pets", "tvmonitor", "cow", "motorbike")
    logits = np.random.default_rng(0).normal(size=(50, 5)) * 3
    softmax = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    grouped = chosen.group(softmax)
    assert grouped.dtype == np.float32 and grouped.shape == (50, 4)
    expected = [[p[1] + p[0], p[4], p[2], p[3]] for p in softmax.astype(np.float64).tolist()]
    np.testing.assert_allclose(grouped, expected, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(grouped[:, 1:], softmax[:, [4, 2, 3]])  # alone means bit for bit
    np.testing.assert_array_equal(chosen.group(softmax[7:8]), grouped[7:8])


def test_background_competes_and_is_in_no_group() -> None:
    softmax = np.array([[0.1, 0.2, 0.05, 0.05, 0.1, 0.5]], dtype=np.float32)
    chosen = select_classes(BUNDLE, ["pets=cat,bird"], background=True)
    assert chosen.column_names == ("pets", "cow", "motorbike", "tvmonitor", "_background")
    np.testing.assert_allclose(chosen.group(softmax), [[0.3, 0.05, 0.05, 0.1, 0.5]], rtol=0, atol=1e-7)
    assert select_classes(BUNDLE, background=True).column_names == (*chosen.names, "_background")
    everything = select_classes(BUNDLE, ["all=bird,cat,cow,motorbike,tvmonitor"], background=True)
    np.testing.assert_allclose(everything.group(softmax), [[0.5, 0.5]], rtol=0, atol=1e-7)
    with pytest.raises(InputError, match=r"\(n,6\)"):
        chosen.group(softmax[:, :5])
    plain = select_classes(BUNDLE, ["pets=cat,bird"])
    assert [label.threshold for label in (*chosen.labels, *plain.labels)] == [0.6, 0.625], "of six columns, and of five"
    assert replace(chosen.labels[0], threshold=0.5) == replace(plain.labels[0], threshold=0.5)


def test_one_class_beside_background() -> None:
    chosen = select_classes(BUNDLE[:1], background=True)
    assert chosen.column_names == ("bird", "_background")
    assert chosen.group(np.array([[0.25, 0.75]], dtype=np.float32)).tolist() == [[0.25, 0.75]]


def test_nobody_can_ask_for_background() -> None:
    for spec in ("_background", "pets=cat,_background"):
        assert "unknown class '_background'" in message(BUNDLE, [spec], background=True)
    assert "no such class" in message(BUNDLE, class_conf={"_background": 0.5}, background=True)
    assert "a label _background" in message(BUNDLE, ["_Background=cat"], background=True)
    assert brief(select_classes(BUNDLE, ["_background=cat"])) == [(1, "_background", (1,))]


def test_a_group_of_everything_is_never_above_one() -> None:
    softmax = np.full((1, 5), 0.2, dtype=np.float32) + np.float32(1e-7)
    chosen = select_classes(BUNDLE, ["all=bird,cat,cow,motorbike,tvmonitor"])
    assert chosen.group(softmax).tolist() == [[1.0]]


def test_no_masks_have_no_probabilities() -> None:
    assert select_classes(BUNDLE, ["cat"]).group(np.zeros((0, 5), dtype=np.float32)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (5,), (1, 3, 5)])
def test_probabilities_of_another_bundle_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(n,5\)"):
        select_classes(BUNDLE).group(np.zeros(shape, dtype=np.float32))


def test_threshold_order(tmp_path: Path) -> None:
    file = file_of(
        tmp_path, '[[class]]\nname = "pets"\nmembers = ["cat", "bird"]\nthreshold = 0.9\n[[class]]\nname = "cow"'
    )

    def thresholds(**kwargs: Any) -> list[float]:
        return [label.threshold for label in select_classes(BUNDLE, **kwargs).labels]

    assert thresholds(specs=["pets=cat,bird", "cow"]) == [
        0.625,
        0.4,
    ]  # 1 - (1 - 0.5) * 3 / 4: the lowest of the members', above what chance gives two of five
    assert thresholds(file=file) == [0.9, 0.4]
    assert thresholds(file=file, conf=0.2) == [0.2, 0.2]
    assert thresholds(file=file, conf=0.2, class_conf={"pets": 0.1}) == [0.1, 0.2]
    assert thresholds(file=file, class_conf={"Cow": 0.7}) == [0.9, 0.7]
    assert thresholds(specs=["motorcycle"], class_conf={"motorcycle": 0.25}) == [0.25]


@pytest.mark.parametrize(
    ("class_conf", "words"),
    [
        ({"pest": 0.5}, ["threshold of class 'pest'", "nearest: pets", "no such class"]),
        ({"cat": 0.5}, ["threshold of class 'cat'", "no such class"]),  # a member, but not a label
        ({"cow": 0.5}, ["no such class"]),  # in the bundle, but not asked for
        ({"pets": 0.5, "PETS": 0.4}, ["a second value for 'pets'"]),
        ({"pets": 0.0}, ["threshold of class 'pets'", "above 0"]),
        ({"pets": 1.01}, ["threshold of class 'pets'", "1.01"]),
        ({"pets": float("nan")}, ["threshold of class 'pets'", "nan"]),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(class_conf: dict[str, float], words: list[str]) -> None:
    text = message(BUNDLE, ["pets=cat,bird"], class_conf=class_conf)
    assert [word for word in words if word not in text] == []


def test_json_is_what_run_json_needs() -> None:
    chosen = select_classes(BUNDLE, ["pets=cat,bird", "cow"], conf=1)
    assert json.loads(json.dumps(chosen.to_json())) == [
        {"id": 1, "name": "pets", "members": ["cat", "bird"], "color": [2, 2, 2], "threshold": 1.0},
        {"id": 2, "name": "cow", "members": ["cow"], "color": [3, 3, 3], "threshold": 1.0},
    ]
    assert '"threshold": 1.0' in json.dumps(chosen.to_json()), "1 and 1.0 have one fingerprint"


FILE = """
[[class]]
name = "pets"
members = ["kitten", "bird"]
color = "#FF8000"
threshold = 0.6

[[class]]
name = " cow "

[[class]]
name = "moto"
members = ["motorbike"]
color = [0, 0, 0]
"""


def test_classes_file(tmp_path: Path) -> None:
    chosen = select_classes(BUNDLE, file=file_of(tmp_path, FILE))
    assert chosen.labels == (
        Label(id=1, name="pets", members=(1, 0), color=(255, 128, 0), threshold=0.6),
        Label(id=2, name="cow", members=(2,), color=(3, 3, 3), threshold=0.4),
        Label(id=3, name="moto", members=(3,), color=(0, 0, 0), threshold=0.3),
    )


def test_the_pages_example_is_a_classes_file(tmp_path: Path) -> None:
    """docs/classes.md shows a file; it must work with the classes that it names."""
    page = (Path(__file__).parents[2] / "docs" / "classes.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    words = ["bird", "cat", "cow", "dog", "horse", "sheep", "car", "bus", "motorbike", "person"]
    bundle = tuple(ClassInfo(id=i + 1, name=word) for i, word in enumerate(words))
    chosen = select_classes(bundle, file=file_of(tmp_path, example))
    assert [label.name for label in chosen.labels] == ["animals", "vehicles", "person"]
    assert all(name in page for name in ("name", "members", "color", "threshold"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["at least one class"]),
        ("[[class]", ["TOML in UTF-8"]),
        ("x = " + "[" * 5000, ["TOML in UTF-8"]),
        ("[[klass]]\nname = 'cat'", ["key 'klass'", "[[class]] tables only"]),
        ("[class]\nname = 'cat'", ["key 'class'", "[[class]] tables"]),
        ("class = ['cat']", ["key 'class'", "[[class]] tables"]),
        ("class = 'cat'", ["key 'class'"]),
        ("[[class]]\nname = 'cat'\ncolour = '#000000'", ["class 1", "key 'colour'", "name, members, color, threshold"]),
        ("[[class]]\nmembers = ['cat']", ["class 1", "key 'name'", "no such key"]),
        ("[[class]]\nname = ''", ["key 'name'"]),
        ("[[class]]\nname = 3", ["key 'name'", "found:    3"]),
        ("[[class]]\nname = 'cat'\n[[class]]\nname = 'a'\nmembers = 'cow'", ["class 2", "key 'members'", "'cow'"]),
        ("[[class]]\nname = 'a'\nmembers = []", ["key 'members'"]),
        ("[[class]]\nname = 'a'\nmembers = ['cat', 3]", ["key 'members'"]),
        ("[[class]]\nname = 'a'\nmembers = [' ']", ["unknown class ''"]),
        ("[[class]]\nname = 'cat'\ncolor = 'red'", ["key 'color'", "#rrggbb"]),
        ("[[class]]\nname = 'cat'\ncolor = '#12345'", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\ncolor = '#12345g'", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\ncolor = [1, 2]", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\ncolor = [1, 2, 256]", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\ncolor = [1, 2, true]", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\ncolor = [1, 2, 3.0]", ["key 'color'"]),
        ("[[class]]\nname = 'cat'\nthreshold = 0", ["key 'threshold'"]),
        ("[[class]]\nname = 'cat'\nthreshold = 1.5", ["key 'threshold'"]),
        ("[[class]]\nname = 'cat'\nthreshold = nan", ["key 'threshold'"]),
        ("[[class]]\nname = 'cat'\nthreshold = true", ["key 'threshold'"]),
        ("[[class]]\nname = 'cat'\nthreshold = '0.5'", ["key 'threshold'"]),
        ("[[class]]\nname = 'kat'", ["class 1 ('kat')", "unknown class 'kat'", "nearest: cat"]),
        ("[[class]]\nname = 'a'\nmembers = ['cat']\n[[class]]\nname = 'cat'", ["class 2", "'cat' in 'a' and in 'cat'"]),
    ],
)
def test_classes_files_that_mean_nothing_are_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    file = file_of(tmp_path, text)
    found = message(BUNDLE, file=file)
    assert [word for word in words if word not in found] == []
    assert not text or str(file) in found


def test_classes_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert "no.toml" in message(BUNDLE, file=tmp_path / "no.toml")
    assert str(tmp_path) in message(BUNDLE, file=tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes('[[class]]\nname = "Kätzchen"'.encode("latin-1"))
    assert "UTF-8" in message(BUNDLE, file=latin)


def test_specs_and_a_file_exclude_each_other(tmp_path: Path) -> None:
    assert "or a classes file" in message(BUNDLE, ["cat"], file=tmp_path / "classes.toml")
