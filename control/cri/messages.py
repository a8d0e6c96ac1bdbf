"""Messages of the Container Runtime Interface, as classes of the protobuf library.

Only the fields that are read or written here have a declaration; protobuf steps over all others.
That is shorter than the interface's 2,000 lines of generated code, which no package ships, and the
library does the parsing: any bytes are a message, or ``DecodeError``.

Numbers of enumerations are whole numbers here, and a map of texts is a repeated :data:`ENTRY`,
which are the same on the wire. Source of truth: kubernetes/cri-api, pkg/apis/runtime/v1/api.proto
(names and numbers of the fields).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

#: Field → its number and its type: a scalar's or a message's name, ``*`` before it if repeated.
Fields = Mapping[str, tuple[int, str]]

SANDBOX_READY: Final = 0
#: Mode of a namespace that is the host's own.
NAMESPACE_NODE: Final = 2
ENTRY: Final = "Entry"

MESSAGES: Final[Mapping[str, Fields]] = {
    ENTRY: {"key": (1, "string"), "value": (2, "string")},
    "ListPodSandboxRequest": {},
    "ListPodSandboxResponse": {"items": (1, "*PodSandbox")},
    "PodSandbox": {
        "id": (1, "string"),
        "metadata": (2, "PodSandboxMetadata"),
        "state": (3, "int32"),
    },
    "PodSandboxMetadata": {"name": (1, "string"), "namespace": (3, "string")},
    "ListContainersRequest": {},
    "ListContainersResponse": {"containers": (1, "*Container")},
    "Container": {
        "id": (1, "string"),
        "pod_sandbox_id": (2, "string"),
        "metadata": (3, "ContainerMetadata"),
    },
    "ContainerMetadata": {"name": (1, "string")},
    "PodSandboxStatusRequest": {"pod_sandbox_id": (1, "string"), "verbose": (2, "bool")},
    "PodSandboxStatusResponse": {"status": (1, "PodSandboxStatus"), "info": (2, f"*{ENTRY}")},
    "PodSandboxStatus": {"state": (3, "int32"), "linux": (6, "LinuxPodSandboxStatus")},
    "LinuxPodSandboxStatus": {"namespaces": (1, "Namespace")},
    "Namespace": {"options": (2, "NamespaceOption")},
    "NamespaceOption": {"network": (1, "int32")},
}

_PACKAGE: Final = "runtime.v1"
_SCALARS: Final = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
}


def declare(messages: Mapping[str, Fields]) -> dict[str, Any]:
    """Classes of these messages, by name.

    The pool is their own, so that two declarations of one message do not meet. The classes' types
    are made at run time, which is why they are ``Any``.
    """
    file = FileDescriptorProto(name="runtime.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = (
                FieldDescriptorProto.LABEL_REPEATED
                if kind.startswith("*")
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            type_name = kind.removeprefix("*")
            if type_name in _SCALARS:
                field.type = _SCALARS[type_name]
            else:
                field.type = FieldDescriptorProto.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{type_name}"
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in messages
    }
