"""The exception tree: as documented, complete, and one with the services' taxonomy."""

from __future__ import annotations

import inspect
import pickle

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from orrery import errors
from orrery.status import is_said_by_server, to_error
from services.runtime import errors as served

PUBLIC_ERRORS = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}


Trailing = tuple[tuple[str, str | bytes], ...]


class Failed:
    """A call that ended with a status, as gRPC presents it."""

    def __init__(self, code: grpc.StatusCode, details: str | None, trailing: Trailing = ()) -> None:
        self._outcome = (code, details, trailing)

    def code(self) -> grpc.StatusCode:
        return self._outcome[0]

    def details(self) -> str | None:
        return self._outcome[1]

    def trailing_metadata(self) -> Trailing:
        return self._outcome[2]


def failed_with(error: served.OrreryError) -> Failed:
    binary = served.to_status(error).SerializeToString()
    trailing = (("x-request-id", "r"), ("grpc-status-details-bin", binary))
    return Failed(served.kind_of(error).grpc_status, error.message, trailing)


def documented_tree() -> dict[str, str]:
    """Class -> parent, read from the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()
        if not words or words[0] not in PUBLIC_ERRORS or not line.startswith("    "):
            continue
        indent = line.index(words[0])
        path = [(column, name) for column, name in path if column < indent]
        parents[words[0]] = path[-1][1] if path else "Exception"
        path.append((indent, words[0]))
    return parents


def test_docstring_draws_the_tree_that_the_classes_form() -> None:
    assert documented_tree() == {
        name: error.__bases__[0].__name__ for name, error in PUBLIC_ERRORS.items()
    }


def test_all_names_every_error_and_nothing_private() -> None:
    assert sorted(errors.__all__) == sorted([*PUBLIC_ERRORS, "ERRORS_BY_REASON"])


def test_every_class_but_the_base_has_a_reason_of_its_own() -> None:
    assert set(errors.ERRORS_BY_REASON.values()) == set(PUBLIC_ERRORS.values()) - {
        errors.OrreryError
    }


@pytest.mark.parametrize("kind", served.ERROR_TABLE, ids=lambda kind: kind.__name__)
def test_every_error_of_the_services_arrives_as_its_own_class(
    kind: type[served.OrreryError],
) -> None:
    sent = kind("what happened", field="prompt", request_id="id-1", retry_after_s=1.5, stage="cite")
    error = to_error(failed_with(sent), request_id="of-client")
    assert error.reason == served.ERROR_TABLE[kind].reason == type(error).default_reason
    assert type(error) is not errors.OrreryError
    assert (error.message, error.field, error.request_id, error.retry_after_s) == (
        "what happened",
        "prompt",
        "id-1",
        1.5,
    )
    assert error.stage == "cite"


def test_kinship_of_the_services_errors_is_kept() -> None:
    for kind in served.ERROR_TABLE:
        for parent in served.ERROR_TABLE:
            if issubclass(kind, parent):
                child_reason, parent_reason = (
                    served.ERROR_TABLE[each].reason for each in (kind, parent)
                )
                assert issubclass(
                    errors.ERRORS_BY_REASON[child_reason], errors.ERRORS_BY_REASON[parent_reason]
                )


def test_reasons_that_no_service_sends_are_those_that_the_client_finds_itself() -> None:
    sent = {kind.reason for kind in served.ERROR_TABLE.values()}
    assert set(errors.ERRORS_BY_REASON) - sent == {"NOT_FOUND", "UNAVAILABLE", "CONNECTION_LOST"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, errors.ModelNotFoundError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.AuthenticationError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDeniedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.OverloadedError),
        (grpc.StatusCode.UNAVAILABLE, errors.UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceededError),
        (grpc.StatusCode.CANCELLED, errors.ConnectionLostError),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.InternalError),
        (grpc.StatusCode.DATA_LOSS, errors.InternalError),
    ],
)
def test_status_without_a_reason_is_read_by_its_code(
    code: grpc.StatusCode, expected: type[errors.OrreryError]
) -> None:
    error = to_error(Failed(code, None), request_id="r")
    assert type(error) is expected
    assert error.request_id == "r"
    assert not is_said_by_server(Failed(code, None))


def test_cancel_that_the_server_reports_is_cancelled() -> None:
    call = failed_with(served.Cancelled("drained"))
    assert type(to_error(call, request_id="r")) is errors.CancelledError
    assert is_said_by_server(call)


def _details(reason: str, domain: str, **metadata: str) -> bytes:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata))
    return status_pb2.Status(code=8, details=[detail]).SerializeToString()


def test_reason_from_the_future_keeps_its_name_and_falls_back_on_the_code() -> None:
    trailing = (("grpc-status-details-bin", _details("QUOTA_SPENT", "orrery")),)
    error = to_error(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "spent", trailing), request_id="r")
    assert type(error) is errors.OverloadedError
    assert error.reason == "QUOTA_SPENT"


@pytest.mark.parametrize(
    "binary", [b"\xff\xff not protobuf", _details("X", "another.example"), b""]
)
def test_details_that_are_not_ours_are_left_alone(binary: bytes) -> None:
    trailing = (("grpc-status-details-bin", binary),)
    call = Failed(grpc.StatusCode.INVALID_ARGUMENT, "theirs", trailing)
    error = to_error(call, request_id="r")
    assert type(error) is errors.InvalidRequestError
    assert error.message == "theirs"
    assert not is_said_by_server(call)


@pytest.mark.parametrize(
    ("sent", "read"), [("2.5", 2.5), ("-1", 0.0), ("soon", None), ("", None), ("nan", None)]
)
def test_retry_after_that_is_no_time_is_ignored(sent: str, read: float | None) -> None:
    trailing = (("grpc-status-details-bin", _details("OVERLOADED", "orrery", retry_after_s=sent)),)
    error = to_error(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "x", trailing), request_id="r")
    assert error.retry_after_s == read


def test_error_survives_pickling() -> None:
    error = errors.RateLimitedError("slow down", field="f", request_id="r", retry_after_s=2.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.RateLimitedError
    assert vars(copy) == vars(error)
    assert str(copy) == "slow down"


def test_repr_shows_what_is_known() -> None:
    error = errors.InvalidRequestError("n: too many", field="n")
    assert repr(error) == (
        "InvalidRequestError('n: too many', reason='INVALID_REQUEST', field='n')"
    )
