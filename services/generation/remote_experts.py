"""A decoder's sparse layers, computed by the `moe` service: `experts: service` of the settings.

    engine's thread ── layer, hidden ──> requests ──> gRPC ─────┐
           ^                                                    │ one stream, kept open
           └───────── answers <── reader's thread <─────────────┘

The engine's thread waits for each layer's answer, so a layer costs one exchange of messages and no
new call. A stream that breaks is opened anew, and what was not answered is sent again: computing a
layer twice is the same as once.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, cast

import grpc
import torch
from torch import Tensor

from orrery import methods
from orrery.connection import Connection
from orrery.errors import (
    DeadlineExceededError,
    DependencyDownError,
    ModelNotFoundError,
    OrreryError,
    OverloadedError,
    UnavailableError,
)
from orrery.retry import Deadline, RetryPolicy
from orrery.settings import ClientSettings
from orrery.status import FailedCall, to_error
from orrery.steps import CallContext, send_with_retries
from orrery.v1 import moe_pb2, tensor_pb2
from services.engine.errors import ConfigError, ExpertsUnavailableError
from services.generation.config import RemoteExpertsConfig

__all__ = ["RemoteExperts"]

_NUMBERS = {
    torch.float32: tensor_pb2.TENSOR_DTYPE_FLOAT32,
    torch.bfloat16: tensor_pb2.TENSOR_DTYPE_BFLOAT16,
}
_PAUSE_S = 0.1  # before a stream that broke is opened anew
_ATTEMPT_S = 1.0
_GONE = (UnavailableError, OverloadedError, ModelNotFoundError)


class RemoteExperts:
    """A `services.generation.backend.Experts`, for one engine; used by one thread at a time.

    A layer is waited for `config.timeout_s`, and for so long after the service was lost: from then
    on calls fail at once, until it is back.
    """

    def __init__(self, config: RemoteExpertsConfig, api_key: str | None) -> None:
        settings = ClientSettings(
            target=config.grpc_target, num_channels=1, applications=(config.application,)
        )
        self._connection = Connection(settings)
        self._application = config.application
        self._api_key = api_key
        self._timeout_s = config.timeout_s
        self._start_timeout_s = config.start_timeout_s
        self._model: moe_pb2.GetMoeModelResponse | None = None
        self._checked: moe_pb2.GetMoeModelResponse | None = None
        self._stream: _Stream | None = None
        self._sequence = count()
        self._lost_s: float | None = None

    def __call__(self, layer: int, hidden: Tensor) -> Tensor:
        """[T, hidden_size] -> [T, hidden_size] of that dtype. Raises `ExpertsUnavailableError`."""
        since_s = time.monotonic() if self._lost_s is None else self._lost_s
        give_up_s = since_s + self._timeout_s
        while True:
            try:
                output = self._ask(layer, hidden, give_up_s)
            except OrreryError as error:
                self._close_stream()
                if not isinstance(error, (*_GONE, DeadlineExceededError)):
                    raise
                self._lost_s = since_s
                now_s = time.monotonic()
                # The router itself has waited for its shards; a late answer leaves no time.
                final = isinstance(error, DependencyDownError | DeadlineExceededError)
                if final or now_s + _PAUSE_S >= give_up_s:
                    raise ExpertsUnavailableError(
                        f"the experts of layer {layer} cannot be reached: {error.message}"
                    ) from error
                time.sleep(_PAUSE_S)
            else:
                self._lost_s = None
                return output

    def wait_until_ready(self) -> None:
        """Returns once the service answers. Raises `ExpertsUnavailableError`."""
        end_s = time.monotonic() + self._start_timeout_s
        while True:
            try:
                self._served()
            except (*_GONE, DeadlineExceededError) as error:  # it may still be starting
                if time.monotonic() + _PAUSE_S >= end_s:
                    raise ExpertsUnavailableError(
                        f"the service {self._application!r} cannot be reached: {error.message}"
                    ) from error
                time.sleep(_PAUSE_S)
            else:
                return

    def check(self, weight_hash: str, dtype: torch.dtype) -> None:
        """Raises `ConfigError` where the service computes other weights, or in another type."""
        model = self._served()
        if model.weight_hash != weight_hash:
            raise ConfigError(
                "moe.application", f"{self._application!r} serves other weights than model_path"
            )
        if model.dtype != _NUMBERS[dtype]:
            name = tensor_pb2.TensorDtype.Name(model.dtype)
            raise ConfigError(
                "engine.dtype", f"expected {name}, in which {self._application!r} computes"
            )
        self._checked = model

    def close(self) -> None:
        """Ends the stream. May be called twice."""
        self._close_stream()
        self._connection.close()

    def _ask(self, layer: int, hidden: Tensor, give_up_s: float) -> Tensor:
        memory = hidden.detach().cpu().contiguous()
        # Also where all patience is spent, there is time for an answer: it may be back.
        give_up_s = max(give_up_s, time.monotonic() + _ATTEMPT_S)
        stream = self._open_stream()
        parts = torch.split(memory, self._served().max_tokens)
        timeout_ms = max(1, int((give_up_s - time.monotonic()) * 1000))
        sequences = [next(self._sequence) for _ in parts]
        for sequence, part in zip(sequences, parts, strict=True):
            stream.send(
                moe_pb2.DispatchStreamRequest(
                    sequence=sequence,
                    input=moe_pb2.LayerInput(layer=layer, hidden=_message(part)),
                    timeout_ms=timeout_ms,
                )
            )
        answers = [stream.receive(sequence, give_up_s) for sequence in sequences]
        return _joined([_rows(answer.hidden, memory) for answer in answers]).to(hidden.device)

    def _served(self) -> moe_pb2.GetMoeModelResponse:
        """What the service tells of its model; asked once for each stream."""
        if self._model is None:
            context = CallContext(
                request_id=uuid.uuid4().hex,
                deadline=Deadline(self._timeout_s),
                api_key=self._api_key,
                retry=RetryPolicy(max_retries=0),
                inner=True,
            )
            steps = send_with_retries(
                context,
                methods.GET_MOE_MODEL,
                moe_pb2.GetMoeModelRequest(),
                application=self._application,
            )
            model = self._connection.run(steps)
            self._check_unchanged(model)
            self._model = model
        return self._model

    def _check_unchanged(self, model: moe_pb2.GetMoeModelResponse) -> None:
        """The service may have been replaced by one of another model."""
        checked = self._checked
        if checked is not None and (model.weight_hash, model.dtype) != (
            checked.weight_hash,
            checked.dtype,
        ):
            raise ExpertsUnavailableError(
                f"{self._application!r} serves other weights, or in another type, than at the start"
            )

    def _open_stream(self) -> _Stream:
        if self._stream is not None and self._stream.ended:  # cut while the decoder was idle
            self._close_stream()
        if self._stream is None:
            context = CallContext(
                request_id=uuid.uuid4().hex,
                deadline=Deadline(float("inf")),
                api_key=self._api_key,
                retry=RetryPolicy(max_retries=0),
                inner=True,
            )
            requests: SimpleQueue[moe_pb2.DispatchStreamRequest | None] = SimpleQueue()
            call = self._connection.open_bidi(
                methods.DISPATCH_STREAM,
                iter(requests.get, None),
                context.metadata(self._application, None),
                None,
            )
            self._stream = _Stream(call, requests, context.request_id)
        return self._stream

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._model = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """Why no more answers come."""

    error: OrreryError


class _Stream:
    """One open call. Its answers are taken by a thread, so that waiting for one can end in time."""

    def __init__(
        self,
        call: Any,
        requests: SimpleQueue[moe_pb2.DispatchStreamRequest | None],
        request_id: str,
    ) -> None:
        self._call = call
        self._requests = requests
        self._request_id = request_id
        self._answers: SimpleQueue[moe_pb2.DispatchStreamResponse | _Ended] = SimpleQueue()
        self.ended = False
        threading.Thread(target=self._read, name="remote-experts", daemon=True).start()

    def send(self, request: moe_pb2.DispatchStreamRequest) -> None:
        self._requests.put(request)

    def receive(self, sequence: int, until_s: float) -> moe_pb2.DispatchStreamResponse:
        """The next answer. Raises `OrreryError`."""
        try:
            answer = self._answers.get(timeout=max(0.001, until_s - time.monotonic()))
        except Empty:
            raise DeadlineExceededError("no answer in time", request_id=self._request_id) from None
        if isinstance(answer, _Ended):
            raise answer.error
        if answer.sequence != sequence:
            raise UnavailableError("the service answered out of order", request_id=self._request_id)
        return answer

    def close(self) -> None:
        self._requests.put(None)  # ends the thread in which gRPC takes the requests
        self._call.cancel()

    def _read(self) -> None:
        try:
            for answer in cast(Iterator[moe_pb2.DispatchStreamResponse], self._call):
                self._answers.put(answer)
        except grpc.RpcError as failure:
            error = to_error(cast(FailedCall, failure), request_id=self._request_id)
        else:
            error = UnavailableError("the service ended the stream", request_id=self._request_id)
        self.ended = True
        self._answers.put(_Ended(error))


def _message(rows: Tensor) -> tensor_pb2.Tensor:
    return tensor_pb2.Tensor(
        dtype=_NUMBERS[rows.dtype],
        shape=rows.shape,
        data=rows.view(torch.uint8).numpy().tobytes(),
    )


def _rows(message: tensor_pb2.Tensor, like: Tensor) -> Tensor:
    """[T, hidden_size], the caller's own."""
    return torch.frombuffer(bytearray(message.data), dtype=like.dtype).view(-1, like.shape[1])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
