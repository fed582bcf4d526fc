"""The pixel checker: right on everything drawn, wrong on everything changed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from training.images.captions import parse
from training.images.checker import Verdict, check, find_objects
from training.images.drawing import draw
from training.images.scenes import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    POSITIONS,
    SHAPES,
    Facts,
    Scene,
    SceneObject,
    draw_scene,
    facts_of,
)


def drawn(kind: str, count: int = 15) -> list[Scene]:
    rng = random.Random(f"checker {kind}")
    return [draw_scene(rng, held_out=index % 2 == 0, kind=kind) for index in range(count)]


def with_object(facts: Facts, index: int, **changes: str) -> Facts:
    objects = list(facts.objects)
    objects[index] = replace(objects[index], **changes)
    return replace(facts, objects=tuple(objects))


def other(values: tuple[str, ...], value: str | None) -> list[str]:
    return [candidate for candidate in values if candidate != value]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_holds_of_a_drawn_picture(kind: str) -> None:
    for scene in drawn(kind):
        assert check(draw(scene), facts_of(scene)) == Verdict(True, True, True), scene


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_each_shape_is_told_in_each_colour_size_and_background(shape: str, colour: str) -> None:
    for background, radius in zip(BACKGROUNDS, (6.75, 9, 13), strict=True):
        thing = SceneObject(shape, colour, "small", 32.3, 31.6, radius)
        name, found = find_objects(draw(Scene("single", background, (thing,))))
        assert (name, len(found)) == (background, 1)
        assert (found[0].colour, found[0].shape) == (colour, shape)
        assert found[0].radius == pytest.approx(radius, abs=0.5)
        assert (found[0].x, found[0].y) == pytest.approx((32.3, 31.6), abs=0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_another_colour_or_shape_is_wrong_and_nothing_else_is(kind: str) -> None:
    for scene in drawn(kind, 3):
        facts, picture = facts_of(scene), draw(scene)
        for index, thing in enumerate(facts.objects):
            taken = {said.colour for said in facts.objects} | {None}
            for colour in [name for name in COLOURS if name not in taken]:
                verdict = check(picture, with_object(facts, index, colour=colour))
                assert (verdict.colour, verdict.shape, verdict.position) == (False, True, True)
            taken = {said.shape for said in facts.objects} | {None}
            for shape in [name for name in SHAPES if name not in taken]:
                verdict = check(picture, with_object(facts, index, shape=shape))
                assert (verdict.colour, verdict.shape, verdict.position) == (True, False, True)
            for size in other(("small", "large"), thing.size):
                verdict = check(picture, with_object(facts, index, size=size))
                assert verdict == Verdict(True, True, True, size=False)


def test_another_position_is_wrong() -> None:
    for scene in drawn("single", 4):
        for position in other(POSITIONS, scene.position):
            verdict = check(draw(scene), replace(facts_of(scene), position=position))
            assert verdict == Verdict(True, True, position=False)


def test_a_swapped_pair_or_another_axis_is_wrong() -> None:
    for scene in drawn("pair"):
        facts = facts_of(scene)
        swapped = replace(facts, objects=facts.objects[::-1])
        verdict = check(draw(scene), swapped)
        assert not verdict.right
        axis = "above" if facts.relation == "left of" else "left of"
        assert not check(draw(scene), replace(facts, relation=axis)).position


def test_attributes_bound_to_the_wrong_object_are_wrong() -> None:
    one = SceneObject("square", "red", "small", 16, 32, 7)
    two = SceneObject("circle", "blue", "small", 48, 32, 7)
    picture = draw(Scene("pair", "white", (one, two), relation="left of"))
    assert not check(picture, parse("a red circle left of a blue square")).right
    assert check(picture, parse("a red square left of a blue circle")).right


def test_another_number_is_wrong() -> None:
    for scene in drawn("count", 10):
        facts, picture = facts_of(scene), draw(scene)
        for count in (2, 3, 4):
            assert check(picture, replace(facts, count=count)).position == (count == facts.count)
    pair = drawn("pair", 1)[0]
    assert not check(draw(pair), Facts(facts_of(pair).objects[:1])).position


def test_another_background_is_told() -> None:
    for scene in drawn("single", 5):
        for background in other(BACKGROUNDS, scene.background):
            verdict = check(draw(scene), replace(facts_of(scene), background=background))
            assert verdict == Verdict(True, True, True, background=False)


def test_an_empty_picture_a_blot_and_noise_are_wrong() -> None:
    facts = parse("a red circle in the centre")
    empty = np.full((64, 64, 3), 250, np.uint8)
    assert check(empty, facts) == Verdict(False, False, False, size=False)
    blot = empty.copy()
    blot[29:35, 2:62] = (215, 35, 40)  # a bar is no shape
    assert not check(blot, facts).shape
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    assert not check(noise, facts).right


def test_softness_and_noise_of_a_decoder_are_forgiven() -> None:
    random_numbers = np.random.default_rng(1)
    scenes = [scene for kind in KINDS for scene in drawn(kind, 10)]
    for scene in scenes:
        soft = ndimage.gaussian_filter(draw(scene).astype(float), (0.7, 0.7, 0))
        rough = soft + random_numbers.normal(0, 6, soft.shape)
        assert check(np.clip(rough, 0, 255).astype(np.uint8), facts_of(scene)).right, scene


@pytest.mark.parametrize("shape", [(32, 32, 3), (64, 64), (64, 64, 4)])
def test_another_size_of_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="picture: expected uint8"):
        check(np.zeros(shape, np.uint8), parse("a red circle"))
