"""The drawn world: nothing held out is trained on, captions say what is drawn, and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.images.captions import (
    caption,
    few_facts,
    parse,
    phrase,
    some_facts,
    vague_caption,
)
from training.images.demo_pictures import write_pictures
from training.images.drawing import BACKGROUND_VALUES, COLOUR_VALUES, draw, draw_many
from training.images.grid import contact_sheet
from training.images.scenes import (
    COLOURS,
    COUNTS,
    KINDS,
    POSITIONS,
    SHAPES,
    Facts,
    ObjectFacts,
    Scene,
    alter,
    combination,
    describes,
    distinct_scenes,
    draw_scene,
    facts_of,
    held_out_scenes,
    is_held_out,
)

DEMO_PROMPT = "a red circle left of a blue square"


@pytest.fixture
def rng() -> random.Random:
    return random.Random(3)


def scenes(rng: random.Random, count: int = 150) -> list[Scene]:
    return [draw_scene(rng, held_out=index % 3 == 0) for index in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [True, False])
def test_draw_scene_keeps_to_its_kind_and_side_of_the_split(kind: str, held_out: bool) -> None:
    rng = random.Random(1)
    for _ in range(100):
        scene = draw_scene(rng, held_out=held_out, kind=kind)
        assert scene.kind == kind
        assert is_held_out(scene) == held_out


def test_about_one_combination_in_eight_is_held_out() -> None:
    rng = random.Random(2)
    thing = draw_scene(rng, held_out=False, kind="single").objects[0]
    sides = [
        is_held_out(
            Scene(
                "single",
                "white",
                (replace(thing, colour=colour, shape=shape),),
                position=position,
            )
        )
        for colour, shape, position in product(COLOURS, SHAPES, POSITIONS)
    ]
    assert 0.08 < sum(sides) / len(sides) < 0.17


def test_combination_ignores_size_and_background(rng: random.Random) -> None:
    scene = draw_scene(rng, held_out=False, kind="pair")
    larger = tuple(replace(thing, size="large", radius=12.0) for thing in scene.objects)
    assert combination(replace(scene, background="black", objects=larger)) == combination(scene)


def test_the_same_seed_draws_the_same_scenes() -> None:
    assert scenes(random.Random(5)) == scenes(random.Random(5))
    assert scenes(random.Random(5)) != scenes(random.Random(6))


def test_alter_changes_what_can_be_said_and_stays_on_its_side(rng: random.Random) -> None:
    for scene in scenes(rng):
        altered = alter(scene, rng)
        assert altered.kind == scene.kind
        assert is_held_out(altered) == is_held_out(scene)
        assert not describes(facts_of(scene), altered)


def test_distinct_scenes_share_no_full_caption() -> None:
    drawn = distinct_scenes(200, seed=1)
    assert len({facts_of(scene) for scene in drawn}) == 200
    assert all(is_held_out(scene) for scene in drawn)


def test_held_out_scenes_are_of_the_kind_asked_for() -> None:
    assert {scene.kind for scene in held_out_scenes("count", 20, seed=1)} == {"count"}


def test_objects_stay_apart_and_mostly_inside(rng: random.Random) -> None:
    for scene in scenes(rng):
        for index, one in enumerate(scene.objects):
            assert one.x - 0.85 * one.radius >= 0
            assert one.x + 0.85 * one.radius <= 64
            for other in scene.objects[index + 1 :]:
                gap = max(abs(one.x - other.x), abs(one.y - other.y))
                assert gap > one.radius + other.radius


def test_captions_say_what_they_were_made_of(rng: random.Random) -> None:
    for scene in scenes(rng):
        for facts in (some_facts(scene, rng), few_facts(scene, rng), facts_of(scene)):
            assert describes(facts, scene)
            said = parse(phrase(facts, rng))
            if facts.kind == "pair" and facts.relation is None:
                assert set(said.objects) == set(facts.objects)
            else:
                assert said == facts


def test_a_full_caption_leaves_nothing_out(rng: random.Random) -> None:
    for scene in scenes(rng, 60):
        assert parse(caption(scene, rng, full=True)) == facts_of(scene)


def test_a_caption_names_colour_and_shape_a_vague_one_need_not(rng: random.Random) -> None:
    drawn = scenes(rng, 60)
    said = [parse(caption(scene, rng)) for scene in drawn]
    assert all(thing.colour and thing.shape for facts in said for thing in facts.objects)
    vague = [parse(vague_caption(scene, rng)) for scene in drawn]
    assert any(not thing.colour for facts in vague for thing in facts.objects)
    assert any(not thing.shape for facts in vague for thing in facts.objects)


def test_the_demo_prompt_is_in_the_grammar() -> None:
    circle, square = ObjectFacts("red", "circle"), ObjectFacts("blue", "square")
    assert parse(DEMO_PROMPT) == Facts((circle, square), relation="left of")
    assert parse("a blue square right of a red circle") == parse(DEMO_PROMPT)
    written = {phrase(parse(DEMO_PROMPT), random.Random(seed)) for seed in range(400)}
    assert DEMO_PROMPT in written


@pytest.mark.parametrize(
    "text",
    ["", "a dog", "two red circle", "a red circles", "a red circle left of", "red red circle"],
)
def test_parse_refuses_what_is_not_of_the_grammar(text: str) -> None:
    with pytest.raises(ValueError, match="caption"):
        parse(text)


def test_describes_is_false_of_a_scene_with_other_or_more_objects(rng: random.Random) -> None:
    pair = draw_scene(rng, held_out=False, kind="pair")
    first = facts_of(pair).objects[0]
    assert not describes(Facts((first,)), pair)
    swapped = replace(facts_of(pair), objects=facts_of(pair).objects[::-1])
    assert not describes(swapped, pair)
    assert describes(replace(swapped, relation=None), pair)
    group = draw_scene(rng, held_out=False, kind="count")
    wrong = next(count for count in COUNTS if count != len(group.objects))
    assert not describes(replace(facts_of(group), count=wrong), group)


def test_draw_paints_objects_in_their_colour_on_the_background(rng: random.Random) -> None:
    for scene in scenes(rng, 40):
        picture = draw(scene)
        assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
        colours = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
        assert BACKGROUND_VALUES[scene.background] in colours
        assert {COLOUR_VALUES[thing.colour] for thing in scene.objects} <= colours


def test_draw_scales_with_the_size(rng: random.Random) -> None:
    scene = draw_scene(rng, held_out=False, kind="pair")
    large = Image.fromarray(draw(scene, size=256)).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(np.asarray(large, float) - draw(scene)).mean() < 2


def test_draw_many_draws_each_alone(rng: random.Random) -> None:
    drawn = scenes(rng, 5)
    assert all(
        (one == draw(scene)).all() for one, scene in zip(draw_many(drawn), drawn, strict=True)
    )


def test_demo_pictures_are_the_same_each_time_and_true(tmp_path: Path) -> None:
    first = write_pictures(tmp_path / "a", 12)
    assert first == write_pictures(tmp_path / "b", 12)
    assert len({picture.caption for picture in first}) == 12
    for picture, scene in zip(first, distinct_scenes(12, seed=1), strict=True):
        assert parse(picture.caption) == facts_of(scene)
        assert (np.asarray(Image.open(tmp_path / "a" / picture.name)) == draw(scene)).all()


def test_contact_sheet_has_room_for_every_picture(rng: random.Random) -> None:
    drawn = scenes(rng, 5)
    words = [caption(scene, rng, full=True) for scene in drawn]
    ink = ["black"] * len(drawn)
    one_row = contact_sheet(draw_many(drawn[:2]), words[:2], ink[:2], columns=2)
    sheet = contact_sheet(draw_many(drawn), words, ink, columns=2)
    assert sheet.width == one_row.width
    assert sheet.height > 2.5 * one_row.height
    assert np.asarray(sheet)[one_row.height : 2 * one_row.height].std() > 0
