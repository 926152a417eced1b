"""A strict reader of protobuf bytes, and the ONNX messages that a bundle may use.

The wire format is https://protobuf.dev/programming-guides/encoding, field numbers are those of ``onnx/onnx.proto``.
Everything that is not listed here is refused: unknown fields, fields given twice (protobuf merges those, so two
readers could see two models), numbers in unusual encodings, subgraphs, local functions, external data. Bytes that pass
mean the same thing to every reader. Nothing is copied and nothing is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .errors import BundleError

WireValue: TypeAlias = int | memoryview
"""An unsigned integer for varints, a view of the bytes for everything else."""
Message: TypeAlias = dict[str, list[WireValue]]
"""The fields of one message by name; an absent field is an empty list."""

MAX_NAME_BYTES = 1024
MAX_FIELDS = 200_000
"""Fields of one message: more nodes than any segmenter has, and few enough to hold in memory."""
MAX_PACKED_BYTES = 1 << 20
"""One packed list of small numbers; weights are tensors, not lists."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Refusal(Exception):
    """Why bytes cannot be accepted; becomes a BundleError that names the file."""

    def __init__(self, expected: str, found: str, do: str = "export the bundle again") -> None:
        super().__init__(expected, found, do)
        self.expected, self.found, self.do = expected, found, do

    def about(self, what: str) -> BundleError:
        """The same as an error about the file ``what``."""
        return BundleError(what, expected=self.expected, found=self.found, do=self.do)


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of one message.

    Attributes:
        name: The message's name.
        fields: Field number to (name, wire types it may come in).
        repeated: Names of fields that may come more than once.
        refused: Field number to what it would bring in; named in the message.
    """

    name: str
    fields: Mapping[int, tuple[str, tuple[int, ...]]]
    repeated: frozenset[str]
    refused: Mapping[int, str]


_KINDS = {
    "varint": (_VARINT,),
    "bytes": (_BYTES,),
    "float": (_FIXED32,),
    "varints": (_BYTES, _VARINT),  # writers may pack repeated numbers into one field or not
    "floats": (_BYTES, _FIXED32),
}


def _layout(name: str, once: str, repeated: str = "", refused: Mapping[int, str] | None = None) -> Layout:
    """Fields are written ``number:name:kind``, separated by blanks."""
    rows = [field.split(":") for field in (*once.split(), *repeated.split())]
    many = frozenset(field.split(":")[1] for field in repeated.split())
    return Layout(name, {int(number): (field, _KINDS[kind]) for number, field, kind in rows}, many, refused or {})


_DEBUG = "debugging information (metadata_props, value_info); strip it"
MODEL = _layout(
    "ModelProto",
    "1:ir_version:varint 2:producer_name:bytes 3:producer_version:bytes 4:domain:bytes 5:model_version:varint"
    " 6:doc_string:bytes 7:graph:bytes",
    "8:opset_import:bytes",
    {14: _DEBUG, 20: "training information", 25: "local functions", 26: "a device configuration"},
)
OPSET = _layout("OperatorSetIdProto", "1:domain:bytes 2:version:varint")
GRAPH = _layout(
    "GraphProto",
    "2:name:bytes 10:doc_string:bytes",
    "1:node:bytes 5:initializer:bytes 11:input:bytes 12:output:bytes",
    {13: _DEBUG, 16: _DEBUG, 14: "quantisation annotations", 15: "a sparse tensor"},
)
NODE = _layout(
    "NodeProto",
    "3:name:bytes 4:op_type:bytes 6:doc_string:bytes 7:domain:bytes",
    "1:input:bytes 2:output:bytes 5:attribute:bytes",
    {9: _DEBUG, 8: "an overload of a local function", 10: "a device configuration"},
)
ATTRIBUTE = _layout(
    "AttributeProto",
    "1:name:bytes 2:f:float 3:i:varint 4:s:bytes 5:t:bytes 13:doc_string:bytes 20:type:varint",
    "7:floats:floats 8:ints:varints 9:strings:bytes 10:tensors:bytes",
    {6: "a subgraph", 11: "a subgraph", 14: "a type", 15: "types", 21: "a reference to a local function's attribute"}
    | {22: "a sparse tensor", 23: "a sparse tensor"},
)
_NOT_RAW = "numbers outside raw_data (write tensors with onnx.numpy_helper.from_array)"
TENSOR = _layout(
    "TensorProto",
    "2:data_type:varint 8:name:bytes 9:raw_data:bytes 12:doc_string:bytes 14:data_location:varint",
    "1:dims:varints",
    {16: _DEBUG, 3: "a segment", 13: "external data"} | dict.fromkeys((4, 5, 6, 7, 10, 11), _NOT_RAW),
)
VALUE_INFO = _layout("ValueInfoProto", "1:name:bytes 2:type:bytes 3:doc_string:bytes", refused={4: _DEBUG})
TYPE = _layout("TypeProto", "1:tensor_type:bytes 6:denotation:bytes")
TENSOR_TYPE = _layout("TypeProto.Tensor", "1:elem_type:varint 2:shape:bytes")
SHAPE = _layout("TensorShapeProto", "", "1:dim:bytes")
DIM = _layout("TensorShapeProto.Dimension", "1:dim_value:varint 2:dim_param:bytes 3:denotation:bytes")


def read_message(view: memoryview, layout: Layout) -> Message:
    """All fields of one message.

    Raises:
        Refusal: Malformed bytes, or a field that ``layout`` does not have.
    """
    message: Message = {name: [] for name, _ in layout.fields.values()}
    for count, (number, wire, value) in enumerate(_wire_fields(view)):
        if count == MAX_FIELDS:
            raise Refusal(f"at most {MAX_FIELDS} fields in a {layout.name}", "more")
        if number in layout.refused:
            raise Refusal("operators and plain tensors only", f"{layout.refused[number]} ({layout.name})")
        name, wires = layout.fields.get(number, ("", ()))
        if wire not in wires:
            raise Refusal(f"the known fields of {layout.name}", f"field {number} with wire type {wire}")
        if message[name] and name not in layout.repeated:
            raise Refusal(f"{layout.name}.{name} once", "twice")
        if wire == _BYTES and len(wires) > 1 and isinstance(value, memoryview) and len(value) > MAX_PACKED_BYTES:
            raise Refusal(f"at most {MAX_PACKED_BYTES} bytes in {layout.name}.{name}", f"{len(value)}")
        message[name].append(value)
    return message


def views(message: Message, name: str) -> Iterator[memoryview]:
    """The values of a bytes field."""
    return (value for value in message[name] if isinstance(value, memoryview))


def only_view(message: Message, name: str, owner: str) -> memoryview:
    """The value of a bytes field that must be there."""
    for view in views(message, name):
        return view
    raise Refusal(f"a {name} in {owner!r}", "none")


def number(message: Message, name: str) -> int:
    """The value of a varint field as a signed 64-bit integer, 0 where absent."""
    return next((_signed(value) for value in message[name] if isinstance(value, int)), 0)


def numbers(message: Message, name: str) -> Iterator[int]:
    """The values of a repeated varint field, packed or not."""
    for value in message[name]:
        if isinstance(value, int):
            yield _signed(value)
            continue
        at = 0
        while at < len(value):
            item, at = _varint(value, at)
            yield _signed(item)


def text(message: Message, name: str) -> str:
    """The value of a string field, empty where absent."""
    return next((decode(view) for view in views(message, name)), "")


def decode(view: memoryview) -> str:
    """A name: UTF-8, not too long."""
    if len(view) > MAX_NAME_BYTES:
        raise Refusal(f"names of at most {MAX_NAME_BYTES} bytes", f"one of {len(view)}")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError:
        raise _malformed("a name that is not UTF-8") from None


def _wire_fields(view: memoryview) -> Iterator[tuple[int, int, WireValue]]:
    """(field number, wire type, value) of each field."""
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield field, wire, value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
        if wire == _BYTES:
            length, at = _varint(view, at)
        if length < 0 or length > end - at:
            raise _malformed(f"field {field} with wire type {wire} runs past its end")
        yield field, wire, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """An unsigned 64-bit number in its shortest form, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise _malformed("a number is cut off")
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64 or (shift and not byte):
                raise _malformed("a number is not in its shortest form")
            return value, at
    raise _malformed("a number has more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _malformed(found: str) -> Refusal:
    return Refusal("an ONNX file", f"bytes that are none: {found}", "fetch the bundle again: the file is damaged")
