"""Documents for tests, and plain-Python answers to what the index computes with arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from services.retrieval.index.collection_index import CollectionIndex, Put
from services.retrieval.index.merging import SegmentPolicy
from services.retrieval.types import (
    AllOf,
    AnyOf,
    Chunk,
    CollectionConfig,
    Comparison,
    DocumentInfo,
    Filter,
    IndexedDocument,
    Metadata,
    MetadataValue,
    Not,
    Operator,
    Vectors,
)

DIMENSIONS = 8
CONFIG = CollectionConfig(dimensions=DIMENSIONS)
WORDS = ("red", "green", "blue", "heavy", "light", "stone", "river", "mountain", "castle", "winter")


def unit_vectors(generator: np.random.Generator, *shape: int) -> Vectors:
    vectors = generator.standard_normal(shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def document(
    document_id: str,
    texts: Sequence[str] = ("some text",),
    vectors: Vectors | None = None,
    metadata: Metadata | None = None,
    chunk_metadata: Sequence[Metadata] | None = None,
) -> IndexedDocument:
    """Vectors are random ones, their id is the seed, where they are not given."""
    if vectors is None:
        seed = np.frombuffer(
            f"{document_id}/{len(texts)}".encode("utf-8", "surrogatepass"), dtype=np.uint8
        )
        vectors = unit_vectors(np.random.default_rng(seed), len(texts), DIMENSIONS)
    own = chunk_metadata or [{}] * len(texts)
    chunks = tuple(
        Chunk(text, start=100 * at, end=100 * at + len(text), metadata=extra)
        for at, (text, extra) in enumerate(zip(texts, own, strict=True))
    )
    info = DocumentInfo(
        id=document_id,
        title="",
        file_name=f"{document_id}.txt",
        media_type="text/plain",
        content_hash=f"hash of {document_id}",
        num_bytes=len("".join(texts)),
        written_at_ms=1_700_000_000_000,
        metadata=metadata or {},
    )
    return IndexedDocument(info, chunks, vectors)


def random_documents(generator: np.random.Generator, number: int) -> list[IndexedDocument]:
    """Of one to three chunks of five words."""
    made = []
    for at in range(number):
        sizes = generator.integers(1, 4)
        texts = [" ".join(generator.choice(WORDS, 5)) for _ in range(sizes)]
        vectors = unit_vectors(generator, len(texts), DIMENSIONS)
        made.append(document(f"doc-{at:04d}", texts, vectors, {"number": float(at)}))
    return made


def index_of(
    documents: Sequence[IndexedDocument], config: CollectionConfig = CONFIG, **policy: object
) -> CollectionIndex:
    index = CollectionIndex(config, SegmentPolicy(**policy))  # type: ignore[arg-type]
    index.apply([Put(one) for one in documents])
    return index


def renamed(one: IndexedDocument, document_id: str) -> IndexedDocument:
    return replace(one, info=replace(one.info, id=document_id))


def effective(one: IndexedDocument, ordinal: int) -> dict[str, MetadataValue]:
    """What a filter sees of a chunk."""
    own = dict(one.chunks[ordinal].metadata)
    return {**one.info.metadata, **own, "document_id": one.info.id, "file_name": one.info.file_name}


def holds(condition: Filter, metadata: Metadata) -> bool:
    match condition:
        case AllOf(filters):
            return all(holds(inner, metadata) for inner in filters)
        case AnyOf(filters):
            return any(holds(inner, metadata) for inner in filters)
        case Not(inner):
            return not holds(inner, metadata)
        case Comparison(field, operator, values):
            return _compares(operator, metadata.get(field), values)


def _compares(
    operator: Operator, value: MetadataValue | None, wanted: tuple[MetadataValue, ...]
) -> bool:
    if value is None:
        return operator in (Operator.NE, Operator.NOT_IN)
    if operator is Operator.EXISTS:
        return True
    elements = value if isinstance(value, tuple) else (value,)
    if type(wanted[0]) is not (str if isinstance(value, tuple) else type(value)):
        return False
    found = any(element == other for element in elements for other in wanted)
    if operator in (Operator.EQ, Operator.IN):
        return found
    if operator in (Operator.NE, Operator.NOT_IN):
        return not found
    if isinstance(value, tuple):
        return False
    bound = wanted[0]
    match operator:
        case Operator.GT:
            return value > bound  # type: ignore[operator]
        case Operator.GTE:
            return value >= bound  # type: ignore[operator]
        case Operator.LT:
            return value < bound  # type: ignore[operator]
        case _:
            return value <= bound  # type: ignore[operator]
