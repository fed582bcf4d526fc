"""Texts and pictures against each other: labels for pictures, cosines of anything with anything.

Embeds both kinds at the same time. Knows nothing of models, caching or gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.embedding.encoder import Vectors, unit_length
from services.embedding.inputs import Purpose, TextInput
from services.embedding.labels import (
    BestLabels,
    best_labels,
    check_answer,
    check_labels,
    ensemble,
    prompts,
)
from services.embedding.picture_vectors import PictureVectors, required
from services.embedding.pictures import Picture
from services.embedding.text_vectors import TextVectors
from services.embedding.vectors import Cost, Embedded
from services.runtime.errors import InvalidRequest
from services.runtime.message_size import MAX_CONTENT_BYTES
from services.runtime.offload import offload_if_large
from services.runtime.run_all import run_all

__all__ = ["Classified", "Compared", "CrossModal"]

_NOTHING = Embedded([], [], [], [], Cost(0, 0, 0.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """The labels that fit each picture best."""

    best: BestLabels
    cost: Cost


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """`[num_left, num_right]` cosines."""

    cosines: Vectors
    cost: Cost


class CrossModal:
    """Of one model, for one event loop. `pictures`: None where the model embeds texts alone."""

    def __init__(
        self, model_name: str, texts: TextVectors, pictures: PictureVectors | None
    ) -> None:
        self._model_name = model_name
        self._texts = texts
        self._pictures = pictures

    async def classify(
        self,
        pictures: Sequence[Picture],
        labels: Sequence[str],
        templates: Sequence[str],
        top_n: int,
        deadline_s: float,
    ) -> Classified:
        """How well the best labels fit each picture; without templates, by the application's own.

        Raises `OrreryError`.
        """
        side = required(self._pictures, self._model_name, "images")
        side.reader.check_count(len(pictures), "images")
        templates = templates or side.config.label_templates
        check_labels(labels, templates, side.config)
        check_answer(len(pictures), labels, top_n, side.config)
        await self._check_lengths(templates)
        texts = [TextInput(prompt) for prompt in prompts(labels, templates)]
        fields = [f"labels[{place}]" for place in range(len(labels)) for _ in templates]
        of_texts, of_pictures = await self._both(texts, fields, pictures, deadline_s)

        def score() -> BestLabels:
            label_vectors = ensemble(np.stack(of_texts.vectors), len(templates))
            cosines = _cosines(unit_length(np.stack(of_pictures.vectors)), label_vectors)
            return best_labels(cosines, side.logit_scale, top_n)

        best = await offload_if_large(len(texts) + len(pictures) * len(labels), score)
        return Classified(best, of_texts.cost.beside(of_pictures.cost))

    async def similarity(
        self,
        left: Sequence[TextInput | Picture],
        right: Sequence[TextInput | Picture],
        deadline_s: float,
    ) -> Compared:
        """Cosines of all on the left with all on the right. Raises `OrreryError`."""
        _check_num_cosines(len(left), len(right))
        texts, fields, pictures = [], [], []
        for name, side in (("left", left), ("right", right)):
            if not side:
                raise InvalidRequest(f"{name}: expected at least one text or picture", field=name)
            for place, item in enumerate(side):
                if isinstance(item, TextInput):
                    texts.append(item)
                    fields.append(f"{name}[{place}].text")
                else:
                    pictures.append(item)
        if texts:
            self._texts.reader.check_count(len(texts), _most_of(TextInput, left, right))
        if pictures:
            readable = required(self._pictures, self._model_name, pictures[0].field)
            readable.reader.check_count(len(pictures), _most_of(Picture, left, right))
        of_texts, of_pictures = await self._both(texts, fields, pictures, deadline_s)

        def compare() -> Vectors:
            by_kind = {TextInput: iter(of_texts.vectors), Picture: iter(of_pictures.vectors)}
            vectors = unit_length(np.stack([next(by_kind[type(item)]) for item in (*left, *right)]))
            return _cosines(vectors[: len(left)], vectors[len(left) :])

        cosines = await offload_if_large(len(left) * len(right), compare)
        return Compared(cosines, of_texts.cost.beside(of_pictures.cost))

    async def _check_lengths(self, templates: Sequence[str]) -> None:
        """Of templates about the shortest label: one that is too long is not the labels' fault."""
        fields = [f"templates[{place}]" for place in range(len(templates))]
        shortest = [TextInput(prompt) for prompt in prompts(["a"], templates)]
        await self._texts.reader.read(shortest, fields, Purpose.NONE, truncate=None)

    async def _both(
        self,
        texts: Sequence[TextInput],
        fields: Sequence[str],
        pictures: Sequence[Picture],
        deadline_s: float,
    ) -> tuple[Embedded, Embedded]:
        """Of the texts and of the pictures, embedded at the same time. Either may be empty."""
        of_texts = of_pictures = _NOTHING

        async def embed_texts() -> None:
            nonlocal of_texts
            of_texts = await self._texts.embed(
                texts, fields, Purpose.NONE, deadline_s, truncate=None
            )

        async def embed_pictures() -> None:
            nonlocal of_pictures
            side = required(self._pictures, self._model_name, pictures[0].field)
            of_pictures = await side.embed(pictures, deadline_s)

        work = [embed_texts()] if texts else []
        if pictures:
            work.append(embed_pictures())
        await run_all(work)
        return of_texts, of_pictures


def _check_num_cosines(num_left: int, num_right: int) -> None:
    """Raises `InvalidRequest` for more than an answer may hold."""
    limit = MAX_CONTENT_BYTES // 4
    if num_left * num_right > limit:
        longer = "left" if num_left > num_right else "right"
        raise InvalidRequest(
            f"{longer}: {num_left} and {num_right} inputs have {num_left * num_right} cosines; "
            f"expected at most {limit}",
            field=longer,
        )


def _most_of(
    kind: type, left: Sequence[TextInput | Picture], right: Sequence[TextInput | Picture]
) -> str:
    """The side that has most of them: the one to blame where there are too many."""
    on_left, on_right = (sum(isinstance(item, kind) for item in side) for side in (left, right))
    return "left" if on_left > on_right else "right"


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    """Of vectors of length 1: `[num_left, num_right]`, rounding kept within -1 and 1."""
    cosines: Vectors = np.clip(left @ right.T, -1.0, 1.0)
    return cosines
