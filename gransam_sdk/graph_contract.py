"""What the four graphs owe each other: the names, dtypes and axes that the runtime hands on without looking inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .errors import BundleError
from .manifest import Graph, Manifest
from .onnx_model import Tensor

_HANDED_ON = ("float32", "float16", "int64")
_DO = "the graphs do not belong together: export the bundle again"


def check_contract(manifest: Manifest, what: str) -> None:
    """Checks the declared inputs and outputs of all graphs against each other and against the sizes.

    Args:
        manifest: With sizes, head, classes and graphs.
        what: The manifest's name, for messages.

    Raises:
        BundleError: Two graphs that do not fit, or a graph in another's place.
    """
    s, e, low = manifest.input_side, manifest.embedding_side, manifest.low_res_side
    d, f = manifest.token_width, manifest.feature_width
    image = _Side(f"{what}: image graph", manifest.graphs["image"])
    prompt = _Side(f"{what}: prompt graph", manifest.graphs["prompt"])
    mask = _Side(f"{what}: mask graph", manifest.graphs["mask"])
    tokens = Tensor("tokens", "float32", ("g", 4, d))

    image.inputs([Tensor("image", "float32", ("b", 3, s, s))])
    hoisted = image.handed_on("h_", "b")
    image.outputs(hoisted)

    per_image = [Tensor(tensor.name, tensor.dtype, tensor.axes[1:]) for tensor in hoisted]
    prompt.inputs([Tensor("points", "float32", ("g", 2))], optional=per_image)
    state = prompt.handed_on("m_", "g")
    lattice, features = Tensor("lattice", "float32", ("g", 4, e, e)), Tensor("features", "float32", ("g", 4, f))
    prompt.outputs([tokens, Tensor("iou", "float32", ("g", 4)), lattice, features, *state])

    chosen = [Tensor(tensor.name, tensor.dtype, ("n", *tensor.axes[1:])) for tensor in state]
    mask.inputs([Tensor("choice", "int64", ("n",))], optional=[*per_image, *chosen])
    mask.outputs([Tensor("logits", "float32", ("n", low, low))])

    if manifest.head is not None:
        head = _Side(f"{what}: head graph", manifest.graphs["head"])
        features = Tensor("features", "float32", ("g", f))
        read = {tensor.name for tensor in manifest.graphs["head"].inputs}
        head.inputs([] if "features" in read else [tokens], optional=[tokens, features])
        head.outputs([Tensor("logits", "float32", ("g", *manifest.head.axes(len(manifest.classes))))])


@dataclass(frozen=True, slots=True)
class _Side:
    """One graph and its name for messages."""

    what: str
    graph: Graph

    def inputs(self, required: Iterable[Tensor], optional: Iterable[Tensor] = ()) -> None:
        check_tensors(f"{self.what}, inputs", self.graph.inputs, required, optional)

    def outputs(self, required: Iterable[Tensor]) -> None:
        check_tensors(f"{self.what}, outputs", self.graph.outputs, required)

    def handed_on(self, prefix: str, letter: str) -> list[Tensor]:
        """The outputs that another graph reads: any number, first axis ``letter``, the others fixed."""
        tensors = [tensor for tensor in self.graph.outputs if tensor.name.startswith(prefix)]
        if not tensors:
            raise BundleError(f"{self.what}, outputs", expected=f"at least one {prefix}* output", found="none", do=_DO)
        for tensor in tensors:
            fixed = all(isinstance(axis, int) for axis in tensor.axes[1:])
            if tensor.axes[:1] != (letter,) or not fixed or tensor.dtype not in _HANDED_ON:
                expected = f"{tensor.name} {' or '.join(_HANDED_ON)} [{letter}, fixed sizes]"
                raise BundleError(f"{self.what}, outputs", expected=expected, found=str(tensor), do=_DO)
        return tensors


def check_tensors(
    what: str, found: Sequence[Tensor], required: Iterable[Tensor], optional: Iterable[Tensor] = ()
) -> None:
    """Checks that ``found`` holds every required tensor and nothing beyond the optional ones, in any order.

    Raises:
        BundleError: The first difference.
    """
    must = {tensor.name: tensor for tensor in required}
    known = {tensor.name: tensor for tensor in optional} | must
    names = [tensor.name for tensor in found]
    for name in must:
        if name not in names:
            raise BundleError(what, expected=str(must[name]), found=", ".join(names) or "none", do=_DO)
    for tensor in found:
        if names.count(tensor.name) > 1:
            raise BundleError(what, expected=f"{tensor.name} once", found=", ".join(names), do=_DO)
        if tensor.name not in known:
            raise BundleError(what, expected=f"only {', '.join(sorted(known))}", found=str(tensor), do=_DO)
        if tensor != known[tensor.name]:
            raise BundleError(what, expected=str(known[tensor.name]), found=str(tensor), do=_DO)
