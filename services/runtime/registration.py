"""Registers a servicer so that bytes which are no message reach it as such, to be refused by name.

gRPC's own registration answers malformed bytes (text that is not UTF-8, above all) with INTERNAL
and a traceback in the log, before any handler runs. Here the deserializer hands the handler a
`MalformedRequest` instead, which `services.runtime.rpc` refuses as `InvalidRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from services.runtime.rpc import MalformedRequest

__all__ = ["AddToServer", "refusing_malformed"]

AddToServer = Callable[[Any, Any], None]


class _Server(Protocol):
    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None: ...
    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None: ...


def refusing_malformed(add_to_server: AddToServer) -> AddToServer:
    """The generated `add_XServicer_to_server`, made tolerant of malformed bytes."""

    def add(servicer: Any, server: _Server) -> None:
        add_to_server(servicer, _TolerantServer(server))

    return add


class _TolerantServer:
    """Passes registrations on with other deserializers."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _handlers: Sequence[Any]) -> None:
        """Generated code registers the same methods twice; the second time brings their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        tolerant = {
            name: handler._replace(request_deserializer=_tolerant(handler.request_deserializer))
            for name, handler in handlers.items()
        }
        generic = grpc.method_handlers_generic_handler(service, tolerant)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service, tolerant)


def _tolerant(deserialize: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        try:
            return deserialize(data)
        except DecodeError:
            return MalformedRequest()

    return parse
