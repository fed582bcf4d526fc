"""How often a text-to-image model draws what held-out captions say, judged by pixels alone.

A picture is right when colour, shape and position (or relation, or number) all are: see `checker`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from training.images.captions import phrase, some_facts
from training.images.checker import Verdict, check
from training.images.drawing import Pixels
from training.images.grid import contact_sheet
from training.images.scenes import KINDS, Facts, facts_of, held_out_scenes
from training.shares import Share

# With more guidance colours and shapes are a little surer, and there is one object too many.
GUIDANCE = 1.5
STEPS = 20  # of DPM-Solver++ 2M
AT_ONCE = 32

Generate = Callable[[Sequence[str]], Pixels]
"""Captions to pictures, uint8 [n, 64, 64, 3]."""


@dataclass(frozen=True)
class Question:
    """A held-out caption and what it says."""

    kind: str
    text: str
    facts: Facts


@dataclass(frozen=True)
class Answer:
    """The picture made of a question, and the verdict on it."""

    question: Question
    picture: Pixels
    verdict: Verdict


def questions(count: int, seed: int = 1) -> list[Question]:
    """`count` held-out captions, of the kinds in turn; position and relation are always said."""
    rng = random.Random(f"diffusion questions {seed}")
    scenes = {kind: held_out_scenes(kind, -(-count // len(KINDS)), seed + 50) for kind in KINDS}
    asked = []
    for index in range(count):
        kind = KINDS[index % len(KINDS)]
        scene = scenes[kind][index // len(KINDS)]
        facts = some_facts(scene, rng)
        while (facts.position, facts.relation) != (scene.position, scene.relation):
            facts = some_facts(scene, rng)
        asked.append(Question(kind, phrase(facts, rng), facts))
        assert facts_of(scene).kind == kind
    return asked


def answer(generate: Generate, asked: Sequence[Question]) -> list[Answer]:
    """Make a picture for every question and judge it."""
    answers: list[Answer] = []
    for first in range(0, len(asked), AT_ONCE):
        part = asked[first : first + AT_ONCE]
        pictures = generate([question.text for question in part])
        answers += [
            Answer(question, picture, check(picture, question.facts))
            for question, picture in zip(part, pictures, strict=True)
        ]
    return answers


def shares(answers: Sequence[Answer]) -> dict[str, Share]:
    """The share of right pictures over all, by kind, and of colour, shape and position alone."""
    figures = {"right": _share("right in colour, shape and position", answers, "right", 0.85)}
    for kind in KINDS:
        of_kind = [given for given in answers if given.question.kind == kind]
        figures[kind] = _share(f"right: {kind}", of_kind, "right")
    for part in ("colour", "shape", "position", "size", "background"):
        figures[part] = _share(f"{part} alone", answers, part)
    return figures


def grid(answers: Sequence[Answer]) -> Image.Image:
    """The pictures with their captions; wrong ones have a red caption."""
    return contact_sheet(
        [given.picture for given in answers],
        [given.question.text for given in answers],
        ["black" if given.verdict.right else "red" for given in answers],
    )


def pipeline_generate(
    pipeline: StableDiffusionPipeline,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 1,
) -> Generate:
    """Pictures by diffusers' pipeline; every call goes on with the random numbers of the last."""
    pipeline.set_progress_bar_config(disable=True)
    randomness = torch.Generator().manual_seed(seed)

    def generate(texts: Sequence[str]) -> Pixels:
        made = pipeline(
            list(texts),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=randomness,
            output_type="np",
        )
        return np.asarray((made.images * 255).round().astype(np.uint8))

    return generate


def _share(title: str, answers: Sequence[Answer], part: str, target: float | None = None) -> Share:
    right = sum(getattr(given.verdict, part) for given in answers)
    return Share(title, right, len(answers), target)
