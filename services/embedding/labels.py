"""Zero-shot classification: labels to prompts, prompts to one vector a label, cosines to
probabilities (Radford et al. 2021, section 3.1).

Knows nothing of models, pictures or gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.embedding.config import PicturesConfig
from services.embedding.encoder import Vectors, unit_length
from services.runtime.errors import InvalidRequest

__all__ = ["check_labels", "ensemble", "probabilities", "prompts"]

PLACE = "{}"


def check_labels(labels: Sequence[str], templates: Sequence[str], config: PicturesConfig) -> None:
    """Before anything is tokenized. Raises `InvalidRequest` naming the label or template."""
    if not 2 <= len(labels) <= config.max_labels:
        raise InvalidRequest(
            f"labels: expected 2 to {config.max_labels}, got {len(labels)}", field="labels"
        )
    if len(labels) * len(templates) > config.max_label_prompts:
        raise InvalidRequest(
            f"labels: {len(labels)} in {len(templates)} templates; expected at most "
            f"{config.max_label_prompts} prompts in all",
            field="labels",
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


def _check_text(text: str, field: str, max_bytes: int) -> None:
    if not text.strip():
        raise InvalidRequest(f"{field}: expected a text that is not empty", field=field)
    if len(text.encode()) > max_bytes:
        raise InvalidRequest(f"{field}: expected at most {max_bytes} bytes of UTF-8", field=field)
