"""Zero-shot classification: labels to prompts, prompts to one vector a label, cosines to
probabilities (Radford et al. 2021, section 3.1), of which the best are kept.

Knows nothing of models, pictures or gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.embedding.config import PicturesConfig
from services.embedding.encoder import Vectors, unit_length
from services.runtime.errors import InvalidRequest

__all__ = [
    "BestLabels",
    "best_labels",
    "check_answer",
    "check_labels",
    "ensemble",
    "probabilities",
    "prompts",
]

PLACE = "{}"
# Of all scores of an answer, where each has its label again: half of what a message may hold.
_MAX_ANSWERED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class BestLabels:
    """Of each picture, best first; all `[num_pictures, num_kept]`."""

    indices: npt.NDArray[np.intp]  # which of the labels
    probabilities: npt.NDArray[np.float64]
    cosines: Vectors


def check_labels(labels: Sequence[str], templates: Sequence[str], config: PicturesConfig) -> None:
    """Before anything is tokenized. Raises `InvalidRequest` naming the label or template."""
    if not 2 <= len(labels) <= config.max_labels:
        raise InvalidRequest(
            f"labels: expected 2 to {config.max_labels}, got {len(labels)}", field="labels"
        )
    if len(labels) * len(templates) > config.max_label_prompts:
        longer = "labels" if len(labels) >= len(templates) else "templates"
        raise InvalidRequest(
            f"{longer}: {len(labels)} labels in {len(templates)} templates; expected at most "
            f"{config.max_label_prompts} prompts in all",
            field=longer,
        )
    first: dict[str, int] = {}
    for position, label in enumerate(labels):
        field = f"labels[{position}]"
        _check_text(label, field, config.max_label_bytes)
        if first.setdefault(label, position) != position:
            raise InvalidRequest(
                f"{field}: expected all labels to differ; labels[{first[label]}] is the same",
                field=field,
            )
    for position, template in enumerate(templates):
        field = f"templates[{position}]"
        _check_text(template, field, config.max_label_bytes)
        if template.count(PLACE) != 1:
            raise InvalidRequest(
                f'{field}: expected "{PLACE}" once, where the label goes', field=field
            )


def check_answer(
    num_pictures: int, labels: Sequence[str], top_n: int, config: PicturesConfig
) -> None:
    """Whether the best `top_n` of each picture can be sent. Raises `InvalidRequest` naming it."""
    longest = sorted((len(label.encode()) for label in labels), reverse=True)[:top_n]
    num_scores, num_bytes = num_pictures * len(longest), num_pictures * sum(longest)
    if num_scores > config.max_scores or num_bytes > _MAX_ANSWERED_BYTES:
        raise InvalidRequest(
            f"top_n: {len(longest)} labels for each of {num_pictures} pictures are {num_scores} "
            f"scores, whose labels have up to {num_bytes} bytes; expected at most "
            f"{config.max_scores} scores and {_MAX_ANSWERED_BYTES} bytes",
            field="top_n",
        )


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Each label in each template: all of the first label, then all of the second."""
    return [template.replace(PLACE, label) for label in labels for template in templates]


def ensemble(vectors: Vectors, num_templates: int) -> Vectors:
    """One vector of length 1 for each label: the mean of its prompts', each of length 1.

    `[num_labels * num_templates, dimensions]` in the order of `prompts` to `[num_labels,
    dimensions]`.
    """
    grouped = unit_length(vectors).reshape(-1, num_templates, vectors.shape[-1])
    return unit_length(grouped.mean(axis=1))


def probabilities(cosines: Vectors, logit_scale: float) -> npt.NDArray[np.float64]:
    """The softmax of `logit_scale * cosines` over the last axis."""
    logits = logit_scale * cosines.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def best_labels(cosines: Vectors, logit_scale: float, num_kept: int) -> BestLabels:
    """Of `[num_pictures, num_labels]` cosines; equal labels in their order."""
    shares = probabilities(cosines, logit_scale)
    best = np.argsort(-shares, axis=1, kind="stable")[:, :num_kept]
    return BestLabels(
        indices=best,
        probabilities=np.take_along_axis(shares, best, axis=1),
        cosines=np.take_along_axis(cosines, best, axis=1),
    )


def _check_text(text: str, field: str, max_bytes: int) -> None:
    if not text.strip():
        raise InvalidRequest(f"{field}: expected a text that is not empty", field=field)
    if len(text.encode()) > max_bytes:
        raise InvalidRequest(f"{field}: expected at most {max_bytes} bytes of UTF-8", field=field)
