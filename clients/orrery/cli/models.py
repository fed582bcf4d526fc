"""`orrery models`: what is served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from rich.console import Console

from orrery.cli.session import JsonOption, TargetOption, TimeoutOption, connect, write_json
from orrery.cli.tables import new_table
from orrery.client import Client
from orrery.errors import InternalError, NotFoundError, OrreryError
from orrery.results import (
    Application,
    EmbeddingModelInfo,
    ImageModelInfo,
    ModelInfo,
    MoeModelInfo,
)

__all__ = ["models", "short_count"]

_AnyModel: TypeAlias = ModelInfo | EmbeddingModelInfo | ImageModelInfo | MoeModelInfo


@dataclass(frozen=True, slots=True)
class _Served:
    """An application that serves a model, or should: it may not answer."""

    application: str
    model: _AnyModel | OrreryError


def models(
    as_json: JsonOption = False,
    timeout_s: TimeoutOption = 10.0,
    target: TargetOption = None,
) -> None:
    """List the served models: of text, embeddings and pictures, and routers of experts."""
    with connect(target, timeout_s) as client:
        found = list(_served(client))
    if as_json:
        write_json([_plain(each) for each in found])
        return
    numbers = ("PARAMS", "CONTEXT")
    table = new_table(
        "MODEL", "SERVED BY", "FAMILY", "BACKEND", "DTYPE", *numbers, "CHAT", numbers=numbers
    )
    for each in found:
        if isinstance(each.model, OrreryError):
            told = f"does not answer: {each.model.reason}"
            table.add_row("-", each.application or "-", told, style="red")
        else:
            table.add_row(*_cells(each.application or "-", each.model))
    Console().print(table)


def _served(client: Client) -> Iterator[_Served]:
    for application in client.applications():
        model = application.error or application.model or _other_model(client, application)
        if model is not None:
            yield _Served(application.name, model)


def _other_model(
    client: Client, application: Application
) -> EmbeddingModelInfo | ImageModelInfo | MoeModelInfo | OrreryError | None:
    """The model of an application that does not generate text; None = it has none."""
    for ask in (client.embedding_model, client.images.model, client.moe.model):
        try:
            return ask(application.name)
        except (NotFoundError, InternalError):
            continue  # it has no such service
        except OrreryError as error:
            return error
    return None


def _plain(served: _Served) -> object:
    """As JSON. A model of text knows its application by itself."""
    if isinstance(served.model, OrreryError):
        return {"application": served.application, "error": served.model}
    if isinstance(served.model, ModelInfo):
        return served.model
    fields = {name: getattr(served.model, name) for name in served.model.__slots__}
    return {"name": fields.pop("model"), "application": served.application, **fields}


def _cells(application: str, model: _AnyModel) -> tuple[str, ...]:
    """A row of the table; the context of what is not text generation is that of one input."""
    if isinstance(model, EmbeddingModelInfo):
        family = "clip" if "image" in model.modalities else "embedding"
        cells = (family, "-", model.dtype, "-", str(model.max_input_tokens), "-")
        return (model.model, application, *cells)
    if isinstance(model, ImageModelInfo):
        cells = ("diffusion", "-", model.dtype, "-", str(model.max_prompt_tokens), "-")
        return (model.model, application, *cells)
    if isinstance(model, MoeModelInfo):
        return (model.model, application, "experts", "-", model.dtype, "-", "-", "-")
    return (
        model.name,
        application,
        model.family,
        model.backend,
        model.dtype,
        short_count(model.num_parameters),
        str(model.max_model_len),
        "yes" if model.has_chat_template else "no",
    )


def short_count(number: int) -> str:
    """Three digits and a letter: 5_242_880 -> 5.24M."""
    for factor, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= factor:
            return f"{number / factor:.3g}{letter}"
    return str(number)
