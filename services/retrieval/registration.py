"""Puts the services on a gRPC server; named in `grpc_servicer_functions` of the Serve config."""

from __future__ import annotations

from orrery.v1.file_pb2_grpc import add_FileServiceServicer_to_server
from orrery.v1.retrieval_pb2_grpc import add_RetrievalServiceServicer_to_server
from services.runtime.registration import refusing_malformed

__all__ = ["add_files_to_server", "add_retrieval_to_server"]

add_retrieval_to_server = refusing_malformed(add_RetrievalServiceServicer_to_server)
add_files_to_server = refusing_malformed(add_FileServiceServicer_to_server)
