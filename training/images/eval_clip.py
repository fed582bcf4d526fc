"""How well a CLIP model knows the drawn world: zero-shot accuracy and search, on held-out scenes.

Every figure is a share of right answers, with the number of questions. Labels are judged against
all labels of their attribute; the vector of a label is the mean over its prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from itertools import product
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from training.images.captions import (
    NOUNS,
    NUMBERS,
    POSITION_WORDS,
    RELATION_WORDS,
    TEMPLATES,
    caption,
)
from training.images.clip_model import image_vectors, text_vectors
from training.images.drawing import draw_many
from training.images.scenes import (
    COLOURS,
    MIRRORED,
    POSITIONS,
    RELATIONS,
    SHAPES,
    Scene,
    SceneObject,
    distinct_scenes,
    held_out_scenes,
)
from training.shares import Share

Vectors = npt.NDArray[np.float32]
_BATCH = 250
_PREFIXES = ("", *TEMPLATES)


class Encoder(Protocol):
    """Texts and pictures to unit vectors of one space."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """[len(texts), dimensions]."""

    def pictures(self, pictures: npt.NDArray[np.uint8]) -> Vectors:
        """uint8 [N, height, width, 3] to [N, dimensions]."""


class FolderEncoder:
    """A CLIP folder, used as everybody uses it: by transformers."""

    def __init__(self, folder: Path) -> None:
        self.model = CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.image_processor = CLIPImageProcessorPil.from_pretrained(folder)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder`."""
        parts = []
        for start in range(0, len(texts), _BATCH):
            some = list(texts[start : start + _BATCH])
            encoded = self.tokenizer(some, padding=True, return_tensors="pt")
            parts.append(text_vectors(self.model, encoded["input_ids"]).numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def pictures(self, pictures: npt.NDArray[np.uint8]) -> Vectors:
        """See `Encoder`."""
        parts = []
        for start in range(0, len(pictures), _BATCH):
            images = [Image.fromarray(picture) for picture in pictures[start : start + _BATCH]]
            inputs = self.image_processor(images, return_tensors="pt")
            parts.append(image_vectors(self.model, inputs["pixel_values"]).numpy())
        return np.concatenate(parts)


def evaluate(encoder: Encoder, count: int = 500, seed: int = 1) -> dict[str, Share]:
    """All figures, each over `count` held-out pictures."""
    singles = held_out_scenes("single", count, seed)
    pairs, groups = (held_out_scenes(kind, count, seed) for kind in ("pair", "count"))
    pictures = encoder.pictures(draw_many(singles))
    attributes = {
        "colour": (colour_prompts(), [scene.objects[0].colour for scene in singles]),
        "shape": (shape_prompts(), [scene.objects[0].shape for scene in singles]),
        "position": (position_prompts(), [str(scene.position) for scene in singles]),
    }
    figures = {
        name: _zero_shot(encoder, pictures, name, *attribute)
        for name, attribute in attributes.items()
    }
    figures["relation"] = _own_labels(encoder, pairs, "relation of a pair", _relations)
    figures["count"] = _own_labels(encoder, groups, "number of objects", _counts)
    figures["search"] = search(encoder, distinct_scenes(count, seed), seed)
    return figures


def colour_prompts() -> dict[str, list[str]]:
    """Prompts for each colour."""
    return {
        colour: [
            f"{prefix}{_article(colour)} {colour} {noun}"
            for prefix, noun in product(_PREFIXES, NOUNS)
        ]
        for colour in COLOURS
    }


def shape_prompts() -> dict[str, list[str]]:
    """Prompts for each shape."""
    return {shape: [f"{prefix}a {shape}" for prefix in _PREFIXES] for shape in SHAPES}


def position_prompts() -> dict[str, list[str]]:
    """Prompts for each position."""
    return {
        position: [
            f"{prefix}{_article(noun)} {noun} {words}"
            for prefix, noun, words in product(_PREFIXES, NOUNS, POSITION_WORDS[position])
        ]
        for position in POSITIONS
    }


def search(encoder: Encoder, scenes: Sequence[Scene], seed: int) -> Share:
    """Full captions of which the right picture comes first among the pictures of `scenes`."""
    rng = random.Random(f"search {seed}")
    queries = encoder.texts([caption(scene, rng, full=True) for scene in scenes])
    scores = queries @ encoder.pictures(draw_many(scenes)).T
    right = int((scores.argmax(axis=1) == np.arange(len(scenes))).sum())
    title = f"full caption finds its picture first among {len(scenes)}"
    return Share(title, right, len(scenes), target=0.9)


def _zero_shot(
    encoder: Encoder,
    pictures: Vectors,
    name: str,
    prompts: dict[str, list[str]],
    answers: Sequence[str],
) -> Share:
    scores = pictures @ _label_vectors(encoder, prompts.values()).T
    labels, best = list(prompts), scores.argmax(axis=1)
    right = sum(labels[index] == answer for index, answer in zip(best, answers, strict=True))
    title = f"{name} of a single object, zero-shot among {len(labels)}"
    return Share(title, right, len(answers), target=0.95)


def _own_labels(
    encoder: Encoder,
    scenes: Sequence[Scene],
    name: str,
    prompts_of: Callable[[Scene], tuple[dict[str, list[str]], str]],
) -> Share:
    """Zero-shot accuracy where every picture has labels of its own, as many as the others."""
    asked = [prompts_of(scene) for scene in scenes]
    every = {
        (index, label): texts
        for index, (prompts, _) in enumerate(asked)
        for label, texts in prompts.items()
    }
    vectors = dict(zip(every, _label_vectors(encoder, every.values()), strict=True))
    right = 0
    for index, picture in enumerate(encoder.pictures(draw_many(scenes))):
        prompts, answer = asked[index]
        scores = {label: float(vectors[index, label] @ picture) for label in prompts}
        right += max(scores, key=lambda label: scores[label]) == answer
    return Share(f"{name}, zero-shot among {len(asked[0][0])}", right, len(scenes))


def _relations(scene: Scene) -> tuple[dict[str, list[str]], str]:
    """Captions with each relation; the right one and its mirror's caption say the opposite."""
    first, second = map(_named, scene.objects)
    labels = {
        relation: [f"{first} {words} {second}" for words in RELATION_WORDS[relation]]
        + [f"{second} {words} {first}" for words in RELATION_WORDS[MIRRORED[relation]]]
        for relation in RELATIONS
    }
    return labels, str(scene.relation)


def _counts(scene: Scene) -> tuple[dict[str, list[str]], str]:
    thing = scene.objects[0]
    plural = f"{thing.shape}es" if thing.shape.endswith("s") else f"{thing.shape}s"
    labels = {
        str(count): [f"{prefix}{number} {thing.colour} {plural}" for prefix in _PREFIXES]
        for number, count in NUMBERS.items()
    }
    return labels, str(len(scene.objects))


def _label_vectors(encoder: Encoder, prompts: Collection[list[str]]) -> Vectors:
    """Unit vectors [labels, dimensions]: the mean over each label's prompts."""
    flat = encoder.texts([text for texts in prompts for text in texts])
    ends = np.cumsum([len(texts) for texts in prompts])[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(flat, ends)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _named(thing: SceneObject) -> str:
    return f"{_article(thing.colour)} {thing.colour} {thing.shape}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
