"""Collections, documents and searches -> the contract's messages."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from orrery.requests import embedding
from orrery.v1 import embedding_pb2
from orrery.v1 import retrieval_pb2 as pb
from orrery.v1.common_pb2 import ImageContent
from services.gateway.schemas.collections import CollectionConfigInput
from services.gateway.schemas.documents import ChunkInput, DocumentInput
from services.gateway.schemas.search import (
    DiversityInput,
    FusionInput,
    QueryInput,
    SearchRequest,
)
from services.gateway.translate.filters import metadata_filter, metadata_values

__all__ = [
    "RERANK_METHODS",
    "SEARCH_MODES",
    "collection_config",
    "diversity_options",
    "document",
    "fusion_options",
    "search_options",
    "search_query",
]

RERANK_METHODS = MappingProxyType(
    embedding.RERANK_METHODS | {None: embedding_pb2.RERANK_METHOD_UNSPECIFIED}
)
SEARCH_MODES = MappingProxyType(
    {
        None: pb.SEARCH_MODE_UNSPECIFIED,
        "hybrid": pb.SEARCH_MODE_HYBRID,
        "dense": pb.SEARCH_MODE_DENSE,
        "sparse": pb.SEARCH_MODE_SPARSE,
    }
)
_METRICS = MappingProxyType(
    {None: pb.METRIC_UNSPECIFIED, "cosine": pb.METRIC_COSINE, "dot": pb.METRIC_DOT}
)
_INDEX_TYPES = MappingProxyType(
    {
        None: pb.INDEX_TYPE_UNSPECIFIED,
        "auto": pb.INDEX_TYPE_UNSPECIFIED,
        "flat": pb.INDEX_TYPE_FLAT,
        "ivf": pb.INDEX_TYPE_IVF,
        "hnsw": pb.INDEX_TYPE_HNSW,
        "ivf_pq": pb.INDEX_TYPE_IVF_PQ,
    }
)


def collection_config(config: CollectionConfigInput | None) -> pb.CollectionConfig | None:
    """What a collection is created with; None = all defaults."""
    if config is None:
        return None
    index = config.index
    return pb.CollectionConfig(
        dimensions=config.dimensions,
        embedding_application=config.embedding_application,
        metric=_METRICS[config.metric],
        index_type=_INDEX_TYPES[index.type if index is not None else None],
        index_parameters=pb.IndexParameters(**_given(index, without="type")),
        chunking=pb.ChunkingConfig(**_given(config.chunking)),
        sparse=pb.SparseConfig(**_given(config.sparse)),
    )


def document(given: DocumentInput) -> pb.Document:
    """A document with its one content."""
    message = pb.Document(
        id=given.id, title=given.title or "", metadata=metadata_values(given.metadata)
    )
    if given.text is not None:
        message.text = given.text
    elif given.file is not None:
        file = given.file
        message.file.CopyFrom(
            pb.FileContent(data=file.data, name=file.name, media_type=file.media_type)
        )
    else:
        assert given.chunks is not None
        message.chunks.CopyFrom(pb.ChunkContents(chunks=map(_chunk, given.chunks)))
    return message


def _chunk(given: ChunkInput) -> pb.ChunkContent:
    return pb.ChunkContent(
        text=given.text,
        vector=given.vector,
        start=given.start,
        metadata=metadata_values(given.metadata),
    )


def search_query(query: QueryInput, image: ImageContent | None = None) -> pb.SearchQuery:
    """A text, a vector, or both; or the query's picture, which has been decoded."""
    return pb.SearchQuery(text=query.text or "", vector=query.vector, image=image)


def search_options(body: SearchRequest) -> pb.SearchOptions:
    """How to search, the same for all queries."""
    return pb.SearchOptions(
        k=body.k,
        mode=SEARCH_MODES[body.mode],
        filter=metadata_filter(body.filter),
        fusion=fusion_options(body.fusion),
        num_candidates=body.num_candidates,
        min_score=body.min_score,
        diversity=diversity_options(body.diversity),
        rerank=RERANK_METHODS[body.rerank],
        max_per_document=body.max_per_document,
        include_text=body.include_text,
        include_vectors=bool(body.include_vectors),
    )


def fusion_options(fusion: FusionInput | None) -> pb.FusionOptions | None:
    """Weights of the two rankings."""
    return None if fusion is None else pb.FusionOptions(**_given(fusion))


def diversity_options(diversity: DiversityInput | None) -> pb.DiversityOptions | None:
    """MMR; None = none."""
    if diversity is None:
        return None
    given = {} if diversity.lambda_ is None else {"lambda": diversity.lambda_}
    return pb.DiversityOptions(**given)


def _given(model: BaseModel | None, without: str = "") -> dict[str, Any]:
    """The fields that have a value; the contract calls them the same."""
    if model is None:
        return {}
    return model.model_dump(exclude_none=True, exclude={without})
