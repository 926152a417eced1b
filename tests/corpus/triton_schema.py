"""What Triton's ``ModelConfig`` allows, as far as a repository of ours uses it: names, numbers and types of the fields.

From ``model_config.proto`` of triton-inference-server/common. protobuf's own parser reads configurations against it and
refuses what is not in it.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_TYPES = {"int64": 3, "int32": 5, "uint32": 13, "bool": 8, "string": 9}
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Latest": {"num_versions": (1, "uint32")},
    "ModelVersionPolicy": {"latest": (1, "Latest")},
    "ModelTensorReshape": {"shape": (1, "int64*")},
    "ModelInput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (4, "int64*"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelOutput": {
        "name": (1, "string"),
        "data_type": (2, "DataType"),
        "dims": (3, "int64*"),
        "reshape": (5, "ModelTensorReshape"),
    },
    "ModelInstanceGroup": {"name": (1, "string"), "kind": (4, "Kind"), "count": (2, "int32"), "gpus": (3, "int32*")},
    "ModelParameter": {"string_value": (1, "string")},
    "ParameterEntry": {"key": (1, "string"), "value": (2, "ModelParameter")},
    "ModelConfig": {
        "name": (1, "string"),
        "platform": (2, "string"),
        "version_policy": (3, "ModelVersionPolicy"),
        "max_batch_size": (4, "int32"),
        "input": (5, "ModelInput*"),
        "output": (6, "ModelOutput*"),
        "instance_group": (7, "ModelInstanceGroup*"),
        "default_model_filename": (8, "string"),
        "parameters": (14, "ParameterEntry*"),
        "backend": (17, "string"),
    },
}
_ENUMS = {
    "DataType": (
        "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32 "
        "TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16"
    ),
    "Kind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
}


def _model_config() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="triton_schema.proto", package="triton_schema", syntax="proto3")
    for name, words in _ENUMS.items():
        values = [descriptor_pb2.EnumValueDescriptorProto(name=word, number=i) for i, word in enumerate(words.split())]
        file.enum_type.append(descriptor_pb2.EnumDescriptorProto(name=name, value=values))
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            entry = message.field.add(name=field, number=number, label=3 if kind.endswith("*") else 1)
            kind = kind.removesuffix("*")
            if kind in _TYPES:
                entry.type = _TYPES[kind]
            else:
                entry.type = 14 if kind in _ENUMS else 11
                entry.type_name = f".triton_schema.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton_schema.ModelConfig"))


def parse_config(text: str) -> Any:
    """A ``config.pbtxt`` as a protobuf message; raises ``text_format.ParseError`` for what no ModelConfig holds."""
    return text_format.Parse(text, _model_config()())
