"""Making, finding, changing and removing collections. Knows nothing of protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from services.retrieval.checks import (
    check_collection_metadata,
    check_collection_name,
    check_label,
)
from services.retrieval.config import RetrievalConfig
from services.retrieval.embedder import Embedder, EmbeddingModel
from services.retrieval.index.collection_index import check_config
from services.retrieval.log.position import Position
from services.retrieval.log.replica import Replica
from services.retrieval.log.state import CollectionView
from services.retrieval.types import ChunkingConfig, CollectionConfig, IndexType
from services.runtime.errors import (
    AlreadyExists,
    CollectionNotFound,
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
)
from services.runtime.peer import Caller

__all__ = ["INDEX_PARAMETERS_OF", "NO_EMBEDDING", "AskedCollection", "AskedConfig", "Collections"]

NO_EMBEDDING = "none"
# How long a collection that is not here may be looked for in the log.
_LOOK_S = 2.0

INDEX_PARAMETERS_OF = {
    IndexType.AUTO: frozenset({"hnsw_m", "hnsw_ef_construction", "hnsw_ef_search"}),
    IndexType.FLAT: frozenset[str](),
    IndexType.IVF: frozenset({"num_lists", "num_probes"}),
    IndexType.HNSW: frozenset({"hnsw_m", "hnsw_ef_construction", "hnsw_ef_search"}),
    IndexType.IVF_PQ: frozenset({"num_lists", "num_probes", "pq_num_subvectors"}),
}


@dataclass(frozen=True, slots=True)
class AskedConfig:
    """A collection's config as asked for: `fields` as of `CollectionConfig`, those that are set."""

    dimensions: int | None = None
    embedding_application: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskedCollection:
    """A collection to make."""

    name: str
    title: str
    config: AskedConfig
    metadata: Mapping[str, str]
    exist_ok: bool


class Collections:
    """The collections of one replica. Writes return the position of their entry in the log."""

    def __init__(self, config: RetrievalConfig, replica: Replica, embedder: Embedder) -> None:
        self._config = config
        self._replica = replica
        self._embedder = embedder

    async def create(self, asked: AskedCollection, caller: Caller) -> tuple[CollectionView, str]:
        """The new collection and the token of its entry. Raises `OrreryError`."""
        check_collection_name(asked.name, "name")
        check_label(asked.title, "title")
        check_collection_metadata(asked.metadata)
        config = await self._resolve(asked.config, caller)
        limit = self._config.limits.max_collections
        try:
            if len(self._replica.collections()) >= limit:
                self._refuse_another(asked.name, limit)
            position = await self._replica.create_collection(
                asked.name, asked.title, config, asked.metadata
            )
        except AlreadyExists:
            if not asked.exist_ok:
                raise
            await self._replica.sync(caller.left_s())
            existing = self._replica.collection(asked.name)
            if existing.config != config:
                raise AlreadyExists(
                    f"name: a collection {asked.name!r} exists with another config", field="name"
                ) from None
            return existing, str(self._replica.applied)
        return await self._written(asked.name, position, caller)

    async def find(self, name: str, field: str = "collection") -> CollectionView:
        """The collection of that name. One that is not here yet is looked for in the log."""
        try:
            return self._replica.collection(name)
        except CollectionNotFound:
            check_collection_name(name, field)
        with suppress(DependencyDown, DeadlineExceeded):  # then memory is all that can be known
            await self._replica.sync(_LOOK_S)
        try:
            return self._replica.collection(name)
        except CollectionNotFound:
            raise CollectionNotFound(
                f"{field}: there is no collection {name!r}", field=field
            ) from None

    def page(self, after: str, limit: int) -> tuple[list[CollectionView], bool]:
        """Collections by name, and whether there are more."""
        rest = [view for view in self._replica.collections() if view.name > after]
        return rest[:limit], len(rest) > limit

    async def update(
        self, name: str, title: str | None, metadata: Mapping[str, str] | None, caller: Caller
    ) -> tuple[CollectionView, str]:
        """The collection as it is afterwards, and the token. Raises `OrreryError`."""
        if title is not None:
            check_label(title, "title")
        if metadata is not None:
            check_collection_metadata(metadata)
        await self.find(name, "name")
        position = await self._replica.update_collection(name, title=title, metadata=metadata)
        return await self._written(name, position, caller)

    async def _written(
        self, name: str, position: Position, caller: Caller
    ) -> tuple[CollectionView, str]:
        await self._replica.wait_for(str(position), caller.left_s())
        return self._replica.collection(name), str(position)

    def _refuse_another(self, name: str, limit: int) -> None:
        try:
            self._replica.collection(name)
        except CollectionNotFound:
            raise InvalidRequest(
                f"name: there are {limit} collections, which is as many as there may be",
                field="name",
            ) from None

    async def _resolve(self, asked: AskedConfig, caller: Caller) -> CollectionConfig:
        application = asked.embedding_application or self._config.default_embedding_application
        fields = dict(asked.fields)
        _check_index_parameters(fields.get("index", {}))
        fields["chunking"] = _with_overlap(fields.get("chunking", {}))
        if application == NO_EMBEDDING:
            if fields.pop("chunking"):
                raise InvalidRequest(
                    "config.chunking: without an embedding application, documents bring their "
                    "chunks",
                    field="config.chunking",
                )
            if asked.dimensions is None:
                raise InvalidRequest(
                    "config.dimensions: required where there is no embedding application",
                    field="config.dimensions",
                )
            config = _validated(dimensions=asked.dimensions, embedding_application=None, **fields)
        else:
            model = await self._model(application, caller)
            fields["chunking"] = _within_context(fields["chunking"], model)
            config = _validated(
                dimensions=_dimensions(asked.dimensions, model),
                embedding_application=application,
                **fields,
            )
            _check_chunking(config, model)
        check_config(config)
        return config

    async def _model(self, application: str, caller: Caller) -> EmbeddingModel:
        known = self._config.embedding_applications
        if application not in known:
            raise InvalidRequest(
                f"config.embedding_application: expected one of "
                f"{', '.join((*known, NO_EMBEDDING))}",
                field="config.embedding_application",
            )
        return await self._embedder.model(application, caller)


def _dimensions(asked: int | None, model: EmbeddingModel) -> int:
    if asked is None:
        return model.dimensions
    if not 1 <= asked <= model.dimensions:
        raise InvalidRequest(
            f"config.dimensions: the embedding model's vectors have {model.dimensions}; expected "
            f"1 to {model.dimensions}, got {asked}",
            field="config.dimensions",
        )
    return asked


def _validated(**fields: Any) -> CollectionConfig:
    try:
        return CollectionConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"]).replace("index.", "index_parameters.")
        raise InvalidRequest(
            f"config.{path}: {first['msg'].lower()}", field=f"config.{path}"
        ) from None


def _check_index_parameters(index: Mapping[str, Any]) -> None:
    """A parameter of another type of index would have no effect."""
    kind = index.get("type", IndexType.AUTO)
    for name in index:
        if name != "type" and name not in INDEX_PARAMETERS_OF[kind]:
            where = f"config.index_parameters.{name}"
            raise InvalidRequest(f"{where}: an index of type {kind.name} has none", field=where)


def _with_overlap(chunking: Mapping[str, Any]) -> dict[str, Any]:
    """An overlap that is not asked for gives way to chunks that are asked to be short."""
    max_tokens = chunking.get("max_tokens")
    if max_tokens is None or "overlap_tokens" in chunking:
        return dict(chunking)
    usual: int = ChunkingConfig.model_fields["overlap_tokens"].default
    return {"overlap_tokens": min(usual, max_tokens // 4), **chunking}


def _within_context(chunking: Mapping[str, Any], model: EmbeddingModel) -> dict[str, Any]:
    """Chunks whose length is not asked for are as long as the model can read, at most."""
    usual: int = ChunkingConfig.model_fields["max_tokens"].default
    if "max_tokens" in chunking or model.max_input_tokens >= usual:
        return dict(chunking)
    return _with_overlap({**chunking, "max_tokens": model.max_input_tokens})


def _check_chunking(config: CollectionConfig, model: EmbeddingModel) -> None:
    if config.chunking.max_tokens > model.max_input_tokens:
        raise InvalidRequest(
            f"config.chunking.max_tokens: the embedding model reads {model.max_input_tokens}, "
            f"got {config.chunking.max_tokens}",
            field="config.chunking.max_tokens",
        )
    if 2 * config.chunking.overlap_tokens > config.chunking.max_tokens:
        raise InvalidRequest(
            "config.chunking.overlap_tokens: expected at most half of max_tokens",
            field="config.chunking.overlap_tokens",
        )
