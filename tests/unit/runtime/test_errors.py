"""The taxonomy: its table is complete, its wire form carries what is known."""

from __future__ import annotations

import inspect
import re

import grpc
import pytest
from google.rpc import error_details_pb2

from orrery.errors import ERRORS_BY_REASON
from services.runtime import errors
from services.runtime.errors import (
    ERROR_TABLE,
    ContextTooLong,
    Internal,
    InvalidRequest,
    OrreryError,
    Overloaded,
    kind_of,
    to_status,
)

TAXONOMY = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, OrreryError) and cls is not OrreryError
]

# The design's own table (section 2), written out once more: the code's table must equal it.
DESIGN = {
    "InvalidRequest": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "ContextTooLong": (grpc.StatusCode.INVALID_ARGUMENT, 400),
    "ModelNotFound": (grpc.StatusCode.NOT_FOUND, 404),
    "CollectionNotFound": (grpc.StatusCode.NOT_FOUND, 404),
    "ResourceNotFound": (grpc.StatusCode.NOT_FOUND, 404),
    "AlreadyExists": (grpc.StatusCode.ALREADY_EXISTS, 409),
    "ServiceNotFound": (grpc.StatusCode.NOT_FOUND, 404),
    "Unauthenticated": (grpc.StatusCode.UNAUTHENTICATED, 401),
    "PermissionDenied": (grpc.StatusCode.PERMISSION_DENIED, 403),
    "Overloaded": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    "RateLimited": (grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
    "NotReady": (grpc.StatusCode.UNAVAILABLE, 503),
    "DependencyDown": (grpc.StatusCode.UNAVAILABLE, 503),
    "DeadlineExceeded": (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
    "Cancelled": (grpc.StatusCode.CANCELLED, 499),
    "Internal": (grpc.StatusCode.INTERNAL, 500),
}


def test_table_has_every_error_of_the_taxonomy_and_no_other() -> None:
    assert set(ERROR_TABLE) == set(TAXONOMY)


def test_table_equals_the_design() -> None:
    table = {
        cls.__name__: (kind.grpc_status, kind.http_status) for cls, kind in ERROR_TABLE.items()
    }
    assert table == DESIGN


def test_reasons_are_distinct_and_say_the_class() -> None:
    for cls, kind in ERROR_TABLE.items():
        assert kind.reason == re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()


def test_every_reason_is_known_to_the_client() -> None:
    server_only = {"SERVICE_NOT_FOUND"}  # grpc.health.v1 has no place in the client
    reasons = {kind.reason for kind in ERROR_TABLE.values()} - server_only
    assert reasons <= set(ERRORS_BY_REASON)


@pytest.mark.parametrize("cls", TAXONOMY)
def test_status_carries_reason_field_id_and_retry(cls: type[OrreryError]) -> None:
    error = cls("what", field="n", request_id="r-1", retry_after_s=1.5, stage="embed")
    status = to_status(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.code == ERROR_TABLE[cls].grpc_status.value[0]
    assert status.message == "what"
    assert (info.reason, info.domain) == (ERROR_TABLE[cls].reason, "orrery")
    assert dict(info.metadata) == {
        "field": "n",
        "request_id": "r-1",
        "retry_after_s": "1.5",
        "stage": "embed",
    }


def test_status_leaves_out_what_is_not_known() -> None:
    info = error_details_pb2.ErrorInfo()
    assert to_status(Overloaded("full")).details[0].Unpack(info)
    assert dict(info.metadata) == {}


def test_status_of_a_huge_message_fits_the_trailers() -> None:
    status = to_status(InvalidRequest("x" * 100_000, field="y" * 100_000))
    assert len(status.SerializeToString()) < 4096


def test_kind_of_a_subclass_is_its_own_row() -> None:
    assert kind_of(ContextTooLong("x")).reason == "CONTEXT_TOO_LONG"
    assert issubclass(ContextTooLong, InvalidRequest)


def test_kind_of_a_foreign_error_is_internal() -> None:
    assert kind_of(ZeroDivisionError()) == ERROR_TABLE[Internal]
