"""Batches for training CLIP: pictures, two captions each, which are true of which, and the facts.

Half of the pictures of a batch are hard negatives: the other half's with one thing changed. Facts
are rows of small integers, one per slot of `SLOT_SIZES`, `UNSAID` where there is nothing to say.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import CLIPTokenizer

from training.images.captions import few_facts, phrase, some_facts
from training.images.drawing import draw_many
from training.images.scenes import (
    BACKGROUNDS,
    COLOURS,
    COUNTS,
    KINDS,
    NORMAL_RELATIONS,
    POSITIONS,
    SHAPES,
    SIZES,
    Facts,
    ObjectFacts,
    Scene,
    alter,
    draw_scene,
    facts_of,
)

CAPTION_TOKENS = 24  # the longest caption of the grammar has 22, with both ends
FULL_SHARE = 0.25
KIND_WEIGHTS = (0.3, 0.55, 0.15)  # most pairs: they are what is learned last
UNSAID = -1
_NUMBERS = (1, *COUNTS)
SLOT_SIZES = (
    *(len(KINDS), len(_NUMBERS)),
    *(len(COLOURS), len(SHAPES), len(SIZES)) * 2,
    *(len(POSITIONS), len(NORMAL_RELATIONS), len(BACKGROUNDS)),
)


@dataclass(frozen=True)
class Batch:
    """Pictures, twice as many captions (caption i is of picture i % N), and the truth.

    Shapes: pictures uint8 [N, 64, 64, 3]; token_ids int64 [2N, CAPTION_TOKENS]; truth bool
    [2N, N]; said int64 [2N, slots], what each caption says; shown int64 [N, slots], what each
    picture shows.
    """

    pictures: npt.NDArray[np.uint8]
    token_ids: npt.NDArray[np.int64]
    truth: npt.NDArray[np.bool_]
    said: npt.NDArray[np.int64]
    shown: npt.NDArray[np.int64]


def batches(
    tokenizer: CLIPTokenizer, num_pictures: int, seed: int, first: int = 0
) -> Iterator[Batch]:
    """The endless stream of training batches from number `first` on; each has its own seed."""
    number = first
    while True:
        yield draw_batch(tokenizer, num_pictures, random.Random(f"{seed} {number}"))
        number += 1


def draw_batch(tokenizer: CLIPTokenizer, num_pictures: int, rng: random.Random) -> Batch:
    """One batch of scenes from the training side of the split."""
    kinds = rng.choices(KINDS, KIND_WEIGHTS, k=num_pictures // 2)
    scenes = [draw_scene(rng, held_out=False, kind=kind) for kind in kinds]
    scenes += [alter(scene, rng) for scene in scenes]
    said = [
        facts_of(scene) if rng.random() < FULL_SHARE else some_facts(scene, rng) for scene in scenes
    ]
    said += [few_facts(scene, rng) for scene in scenes]
    return Batch(
        pictures=draw_many(scenes),
        token_ids=encode([phrase(facts, rng) for facts in said], tokenizer),
        truth=truth_matrix(said, scenes),
        said=slots([_ordered(facts) for facts in said]),
        shown=slots([facts_of(scene) for scene in scenes]),
    )


def slots(facts: Sequence[Facts]) -> npt.NDArray[np.int64]:
    """[len(facts), slots]: equal where the facts are."""
    return np.array([_code(one) for one in facts])


def encode(texts: Sequence[str], tokenizer: CLIPTokenizer) -> npt.NDArray[np.int64]:
    """Token ids [len(texts), CAPTION_TOKENS], padded with the end token."""
    encoded = tokenizer(
        list(texts), padding="max_length", max_length=CAPTION_TOKENS, truncation=True
    )
    return np.array(encoded["input_ids"])


def truth_matrix(captions: Sequence[Facts], scenes: Sequence[Scene]) -> npt.NDArray[np.bool_]:
    """`describes` for every caption and scene at once: [len(captions), len(scenes)]."""
    said, mirrored = slots(captions), slots([_mirrored(facts) for facts in captions])
    truth = slots([facts_of(scene) for scene in scenes])
    return _agrees(said, truth) | _agrees(mirrored, truth)


def _agrees(said: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    matches = (said[:, None] == truth[None]) | (said[:, None] == UNSAID)
    return np.asarray(matches.all(axis=-1))


def _mirrored(facts: Facts) -> Facts:
    """Without a relation, a pair may be named in either order."""
    if facts.kind != "pair" or facts.relation is not None:
        return facts
    return Facts(objects=facts.objects[::-1], background=facts.background)


def _ordered(facts: Facts) -> Facts:
    """Without the objects of a pair whose order is not said: no slot is theirs."""
    if facts.kind != "pair" or facts.relation is not None:
        return facts
    return Facts(objects=(ObjectFacts(), ObjectFacts()), background=facts.background)


def _code(facts: Facts) -> list[int]:
    second = facts.objects[1] if facts.kind == "pair" else ObjectFacts()
    row = [KINDS.index(facts.kind), _NUMBERS.index(facts.count)]
    for thing in (facts.objects[0], second):
        row += [_place(thing.colour, COLOURS), _place(thing.shape, SHAPES)]
        row.append(_place(thing.size, SIZES))
    row.append(_place(facts.position, POSITIONS))
    row += [_place(facts.relation, NORMAL_RELATIONS), _place(facts.background, BACKGROUNDS)]
    return row


def _place(value: str | None, values: tuple[str, ...]) -> int:
    return UNSAID if value is None else values.index(value)
