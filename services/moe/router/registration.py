"""Puts the service on a gRPC server; named in `grpc_servicer_functions` of the Serve config."""

from __future__ import annotations

from orrery.v1.moe_pb2_grpc import add_MoeRouterServiceServicer_to_server
from services.runtime.registration import refusing_malformed

__all__ = ["add_to_server"]

add_to_server = refusing_malformed(add_MoeRouterServiceServicer_to_server)
