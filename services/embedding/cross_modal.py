"""Texts and pictures against each other: labels for pictures, cosines of anything with anything.

Embeds both kinds at the same time. Knows nothing of models, caching or gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.embedding.encoder import Vectors, unit_length
from services.embedding.inputs import Purpose, TextInput
from services.embedding.labels import check_labels, ensemble, probabilities, prompts
from services.embedding.picture_vectors import PictureVectors, required
from services.embedding.pictures import Picture
from services.embedding.text_vectors import TextVectors
from services.embedding.together import together
from services.embedding.vectors import Cost, Embedded
from services.runtime.errors import InvalidRequest

__all__ = ["Classified", "Compared", "CrossModal"]

_NOTHING = Embedded([], [], [], [], Cost(0, 0, 0.0, 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """Of each picture and label; both `[num_pictures, num_labels]`."""

    probabilities: npt.NDArray[np.float64]
    cosines: Vectors
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
        deadline_s: float,
    ) -> Classified:
        """How well each label fits each picture; without templates, by the application's own.

        Raises `OrreryError`.
        """
        side = required(self._pictures, self._model_name, "images")
        side.reader.check_count(len(pictures), "images")
        templates = templates or side.config.label_templates
        check_labels(labels, templates, side.config)
        texts = [TextInput(prompt) for prompt in prompts(labels, templates)]
        fields = [f"labels[{place}]" for place in range(len(labels)) for _ in templates]
        of_texts, of_pictures = await self._both(texts, fields, pictures, deadline_s)
        label_vectors = ensemble(np.stack(of_texts.vectors), len(templates))
        cosines = _cosines(unit_length(np.stack(of_pictures.vectors)), label_vectors)
        cost = of_texts.cost.beside(of_pictures.cost)
        return Classified(probabilities(cosines, side.logit_scale), cosines, cost)

    async def similarity(
        self,
        left: Sequence[TextInput | Picture],
        right: Sequence[TextInput | Picture],
        deadline_s: float,
    ) -> Compared:
        """Cosines of all on the left with all on the right. Raises `OrreryError`."""
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
            self._texts.reader.check_count(len(texts), "left and right")
        if pictures:
            readable = required(self._pictures, self._model_name, pictures[0].field)
            readable.reader.check_count(len(pictures), "left and right")
        of_texts, of_pictures = await self._both(texts, fields, pictures, deadline_s)
        by_kind = {TextInput: iter(of_texts.vectors), Picture: iter(of_pictures.vectors)}
        vectors = unit_length(np.stack([next(by_kind[type(item)]) for item in (*left, *right)]))
        cost = of_texts.cost.beside(of_pictures.cost)
        return Compared(_cosines(vectors[: len(left)], vectors[len(left) :]), cost)

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
                texts, fields, Purpose.NONE, deadline_s, truncate=False
            )

        async def embed_pictures() -> None:
            nonlocal of_pictures
            side = required(self._pictures, self._model_name, pictures[0].field)
            of_pictures = await side.embed(pictures, deadline_s)

        work = [embed_texts()] if texts else []
        if pictures:
            work.append(embed_pictures())
        await together(*work)
        return of_texts, of_pictures


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    """Of vectors of length 1: `[num_left, num_right]`, rounding kept within -1 and 1."""
    cosines: Vectors = np.clip(left @ right.T, -1.0, 1.0)
    return cosines
