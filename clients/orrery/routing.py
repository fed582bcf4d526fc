"""From a model's name to the application that serves it.

A name is an application's (`llama`) or one that an application serves its model under
(`orrery-llama`). Which applications there are is asked of Ray Serve, unless the client was told;
what they serve is asked of them, with `GetModel`. Answers are remembered until a call proves them
wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from orrery.errors import InternalError, InvalidRequestError, ModelNotFoundError, OrreryError
from orrery.methods import GET_MODEL, LIST_APPLICATIONS
from orrery.parsing.generation import parse_model
from orrery.results import Application, ModelInfo
from orrery.settings import ClientSettings
from orrery.status import FailedCall
from orrery.steps import CallContext, Steps, send_with_retries
from orrery.v1 import generation_pb2 as pb

__all__ = ["Route", "Router"]

# One application that hangs must not use up the whole time of a call.
_PROBE_TIMEOUT_S = 5.0

# How an application that has no GenerationService answers, through the one balancer or the other.
_OTHER_SERVICE_CODES = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: the application, and the model name to send (empty = its only one)."""

    application: str
    model: str


class Router:
    """Finds and remembers routes. Safe to share between threads: entries are replaced whole."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._routes: dict[str | None, Route] = {}

    def forget(self) -> None:
        """Drops what was learnt; the next call asks again."""
        self._routes.clear()

    def resolve(self, model: str | None, context: CallContext) -> Steps[Route]:
        """The route for a model's or an application's name; None = the only model there is.

        Raises:
            ModelNotFoundError: Nobody serves it.
            InvalidRequestError: No name was given and there are several models.
            OrreryError: The application that might serve it does not answer.
        """
        route = self._routes.get(model)
        if route is None:
            names = yield from self._application_names(context)
            if model is None:
                route = yield from self._only_route(names, context)
            elif model in names:
                route = Route(model, "")
            else:
                route = yield from self._serving(model, names, context)
            self._routes[model] = route
        return route

    def applications(self, context: CallContext) -> Steps[tuple[Application, ...]]:
        """Every application of the platform with the model it serves, if it serves one."""
        names = yield from self._application_names(context)
        found: tuple[Application, ...] = ()
        for name in names:
            found += ((yield from self._probe(name, "", context)),)
        return found

    def _application_names(self, context: CallContext) -> Steps[tuple[str, ...]]:
        if self._settings.applications is not None:
            return self._settings.applications
        try:
            listing = yield from send_with_retries(
                context, LIST_APPLICATIONS, FieldMask(), application=""
            )
        except OrreryError as error:
            if _code(error) is grpc.StatusCode.UNIMPLEMENTED:
                return ("",)  # not Ray Serve: a plain gRPC server, which serves one model
            raise
        return tuple(sorted(listing.paths))

    def _only_route(self, names: tuple[str, ...], context: CallContext) -> Steps[Route]:
        models: list[ModelInfo] = []
        for name in names:
            application = yield from self._probe(name, "", context)
            if application.error is not None:
                application = yield from self._probe(name, "", context, patient=True)
            if application.error is not None:
                raise application.error
            if application.model is not None:
                models.append(application.model)
        if not models:
            raise ModelNotFoundError("no application serves a model", request_id=context.request_id)
        if len(models) > 1:
            known = ", ".join(sorted(model.name for model in models))
            raise InvalidRequestError(
                f"model: expected the name of one, because several are served: {known}",
                field="model",
                request_id=context.request_id,
            )
        return Route(models[0].application, "")

    def _serving(self, model: str, names: tuple[str, ...], context: CallContext) -> Steps[Route]:
        silent: list[str] = []
        for name in names:
            application = yield from self._probe(name, model, context)
            if application.model is not None:
                return Route(name, model)
            if application.error is not None:
                silent.append(name)
        for name in silent:  # it can only be one of these: now they are worth waiting for
            application = yield from self._probe(name, model, context, patient=True)
            if application.model is not None:
                return Route(name, model)
            if application.error is not None:
                raise application.error
        known = ", ".join(name for name in names if name)
        raise ModelNotFoundError(
            f"model: nobody serves {model!r}" + (f"; asked {known}" if known else ""),
            field="model",
            request_id=context.request_id,
        )

    def _probe(
        self, application: str, model: str, context: CallContext, *, patient: bool = False
    ) -> Steps[Application]:
        """Whether an application serves `model` (empty = any)."""
        if not patient:
            context = replace(context, retry=replace(context.retry, max_retries=0))
        try:
            response = yield from send_with_retries(
                context,
                GET_MODEL,
                pb.GetModelRequest(model=model),
                application=application,
                at_most_s=math.inf if patient else _PROBE_TIMEOUT_S,
            )
        except OrreryError as error:
            absent = error if _may_serve(error) else None
            return Application(application, None, absent)
        return Application(application, parse_model(response, application), None)


def _may_serve(error: OrreryError) -> bool:
    """Whether an application that answered so may serve the model nevertheless."""
    if isinstance(error, ModelNotFoundError):
        return False
    other_service = _code(error) in _OTHER_SERVICE_CODES and type(error) is InternalError
    return not other_service


def _code(error: OrreryError) -> grpc.StatusCode | None:
    """The gRPC code that an error was made from."""
    cause = error.__cause__
    return cast(FailedCall, cause).code() if isinstance(cause, grpc.RpcError) else None
