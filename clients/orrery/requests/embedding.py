"""Requests of the embedding service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from orrery.requests.common import assign, assign_text_or_ids, choose
from orrery.requests.pictures import ImageInput, Picture, as_images
from orrery.v1 import embedding_pb2 as pb

__all__ = [
    "PURPOSES",
    "RERANK_METHODS",
    "EmbeddingInput",
    "EmbeddingPurpose",
    "RerankMethod",
    "SimilarityInput",
    "build_classify",
    "build_embed",
    "build_embed_images",
    "build_rerank",
    "build_similarity",
]

EmbeddingInput: TypeAlias = str | Iterable[int]
"""A text, or ids of the model's own vocabulary without special tokens."""

SimilarityInput: TypeAlias = str | ImageInput
"""A text, or a picture as bytes, as a `Path` or as an open file. A bare `str` is a text."""

EmbeddingPurpose: TypeAlias = Literal["query", "passage"]
RerankMethod: TypeAlias = Literal["cross_encoder", "bi_encoder"]

PURPOSES = {
    "query": pb.EMBEDDING_PURPOSE_QUERY,
    "passage": pb.EMBEDDING_PURPOSE_PASSAGE,
}
RERANK_METHODS = {
    "cross_encoder": pb.RERANK_METHOD_CROSS_ENCODER,
    "bi_encoder": pb.RERANK_METHOD_BI_ENCODER,
}


def build_embed(
    inputs: str | Iterable[EmbeddingInput],
    *,
    purpose: EmbeddingPurpose | None,
    dimensions: int | None,
    truncate: bool | None,
) -> pb.EmbedTextRequest:
    """An `EmbedText` request; one bare text is one input."""
    request = pb.EmbedTextRequest()
    for i, each in enumerate([inputs] if isinstance(inputs, str) else inputs):
        assign_text_or_ids(request.inputs.add(), each, f"inputs[{i}]")
    if purpose is not None:
        request.purpose = choose(PURPOSES, purpose, "purpose")  # type: ignore[assignment]
    for name, value in (("dimensions", dimensions), ("truncate", truncate)):
        if value is not None:
            assign(request, name, value)
    return request


def build_rerank(
    query: str,
    passages: Iterable[str],
    *,
    top_n: int | None,
    method: RerankMethod | None,
) -> pb.RerankRequest:
    """A `Rerank` request."""
    if isinstance(passages, str):
        raise TypeError("passages: expected several texts, got one")
    request = pb.RerankRequest()
    assign(request, "query", query)
    assign(request, "passages", list(passages))
    if top_n is not None:
        assign(request, "top_n", top_n)
    if method is not None:
        request.method = choose(RERANK_METHODS, method, "method")  # type: ignore[assignment]
    return request


def build_embed_images(
    images: ImageInput | Iterable[ImageInput], *, dimensions: int | None
) -> tuple[pb.EmbedImageRequest, list[Picture]]:
    """An `EmbedImage` request, and the pictures that it still lacks."""
    request = pb.EmbedImageRequest()
    if dimensions is not None:
        assign(request, "dimensions", dimensions)
    return request, _pictures(request, images)


def build_classify(
    images: ImageInput | Iterable[ImageInput],
    labels: Iterable[str],
    *,
    templates: str | Iterable[str] | None,
    top_n: int | None,
) -> tuple[pb.ClassifyRequest, list[Picture]]:
    """A `Classify` request, and the pictures that it still lacks."""
    if isinstance(labels, str):
        raise TypeError("labels: expected several texts, got one")
    request = pb.ClassifyRequest()
    assign(request, "labels", list(labels))
    if templates is not None:
        one = isinstance(templates, str)
        assign(request, "templates", [templates] if one else list(templates))
    if top_n is not None:
        assign(request, "top_n", top_n)
    return request, _pictures(request, images)


def build_similarity(
    left: SimilarityInput | Iterable[SimilarityInput],
    right: SimilarityInput | Iterable[SimilarityInput],
) -> tuple[pb.SimilarityRequest, list[Picture]]:
    """A `Similarity` request, and the pictures that it still lacks."""
    request = pb.SimilarityRequest()
    pictures: list[Picture] = []
    for field, inputs in (("left", left), ("right", right)):
        for i, each in enumerate(as_images(inputs, field)):
            where, message = f"{field}[{i}]", getattr(request, field).add()
            if isinstance(each, str):
                assign(message, "text", each, where)
            else:
                pictures.append(Picture(message.image, each, where))
    return request, pictures


def _pictures(
    request: pb.EmbedImageRequest | pb.ClassifyRequest, images: ImageInput | Iterable[ImageInput]
) -> list[Picture]:
    """One bare picture is a list of one."""
    return [
        Picture(request.images.add(), image, f"images[{i}]")
        for i, image in enumerate(as_images(images))
    ]
