"""Scenes: what a picture of the drawn world shows, and which combinations are held out.

Knows nothing of pixels (`drawing`) and of wording (`captions`). A scene is a single object at one
of nine positions, a pair of different objects in a relation, or two to four of the same object.
Lengths are in pixels of a 64x64 picture, x to the right and y downwards.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, replace

PICTURE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "cyan")
BACKGROUNDS = ("white", "grey", "black")
SIZES = ("small", "large")
KINDS = ("single", "pair", "count")
KIND_WEIGHTS = (0.4, 0.4, 0.2)
COUNTS = (2, 3, 4)

POSITION_CENTRES = {
    f"{row} {column}".strip() or "centre": (x, y)
    for row, y in (("top", 14), ("", 32), ("bottom", 50))
    for column, x in (("left", 14), ("", 32), ("right", 50))
}
POSITIONS = tuple(POSITION_CENTRES)

RELATIONS = ("left of", "right of", "above", "below")
NORMAL_RELATIONS = ("left of", "above")
MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_RADII = {"small": (6.75, 7.75), "large": (11.0, 13.0)}
_SWAP_SHARE = 0.6  # of hard negatives of pairs; order is what is learned last
_COUNT_CELLS = tuple((x, y) for y in (11.5, 32, 52.5) for x in (11.5, 32, 52.5))


@dataclass(frozen=True)
class SceneObject:
    """One object: its looks, its centre and its radius in pixels."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows. In a pair the first object is left of or above the second."""

    kind: str
    background: str
    objects: tuple[SceneObject, ...]
    position: str | None = None
    relation: str | None = None


@dataclass(frozen=True)
class ObjectFacts:
    """What is said of an object; None: nothing is said."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None


@dataclass(frozen=True)
class Facts:
    """What a caption says of a whole picture; None: nothing is said.

    A single has one entry in `objects`, a pair two (in the order of a relation in normal form,
    `left of` or `above`), a group of `count` equal objects one.
    """

    objects: tuple[ObjectFacts, ...]
    count: int = 1
    position: str | None = None
    relation: str | None = None
    background: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if len(self.objects) == 2:
            return "pair"
        return "single" if self.count == 1 else "count"


def facts_of(scene: Scene) -> Facts:
    """Everything that can be said of `scene`."""
    said = tuple(ObjectFacts(thing.colour, thing.shape, thing.size) for thing in scene.objects)
    count = len(said) if scene.kind == "count" else 1
    return Facts(
        objects=said[:1] if scene.kind == "count" else said,
        count=count,
        position=scene.position,
        relation=scene.relation,
        background=scene.background,
    )


def describes(facts: Facts, scene: Scene) -> bool:
    """Whether `facts` hold of `scene`, and name all the objects in it."""
    truth = facts_of(scene)
    if (facts.kind, facts.count) != (truth.kind, truth.count):
        return False
    whole = ((facts.position, truth.position), (facts.background, truth.background))
    if not all(_agrees(*pair) for pair in whole) or not _agrees(facts.relation, truth.relation):
        return False
    orders = [truth.objects]
    if facts.kind == "pair" and facts.relation is None:
        orders.append(truth.objects[::-1])
    return any(all(map(_object_agrees, facts.objects, order)) for order in orders)


def combination(scene: Scene) -> str:
    """The normal form of what makes `scene` held out or not; a pair and its mirror have one."""
    first = scene.objects[0]
    parts = [f"{first.colour} {first.shape}"]
    if scene.kind == "single":
        parts.append(str(scene.position))
    elif scene.kind == "pair":
        second = scene.objects[1]
        parts += [str(scene.relation), f"{second.colour} {second.shape}"]
    else:
        parts.insert(0, str(len(scene.objects)))
    return " ".join(parts)


def is_held_out(scene: Scene) -> bool:
    """Whether the combination is among the one in eight that training never draws."""
    return hashlib.sha256(combination(scene).encode()).digest()[0] % 8 == 0


def draw_scene(rng: random.Random, *, held_out: bool, kind: str | None = None) -> Scene:
    """Draw a scene at random, from the held-out combinations or from the others."""
    while True:
        scene = _draw(rng, kind or rng.choices(KINDS, KIND_WEIGHTS)[0])
        if is_held_out(scene) == held_out:
            return scene


def held_out_scenes(kind: str | None, count: int, seed: int) -> list[Scene]:
    """`count` held-out scenes of one kind, or of all where `kind` is None."""
    rng = random.Random(f"{kind} {seed}")
    return [draw_scene(rng, held_out=True, kind=kind) for _ in range(count)]


def distinct_scenes(count: int, seed: int) -> list[Scene]:
    """Held-out scenes of all kinds, of which no two can be told by the same full caption."""
    rng = random.Random(f"distinct {seed}")
    scenes: dict[Facts, Scene] = {}
    while len(scenes) < count:
        scene = draw_scene(rng, held_out=True)
        scenes.setdefault(facts_of(scene), scene)
    return list(scenes.values())


def alter(scene: Scene, rng: random.Random) -> Scene:
    """A scene that differs in one thing, from the same side of the split: a hard negative."""
    held_out = is_held_out(scene)
    while True:
        altered = _alter_once(scene, rng)
        if facts_of(altered) != facts_of(scene) and is_held_out(altered) == held_out:
            return altered


def _draw(rng: random.Random, kind: str) -> Scene:
    background = rng.choice(BACKGROUNDS)
    if kind == "single":
        position = rng.choice(POSITIONS)
        looks = (rng.choice(SHAPES), rng.choice(COLOURS), rng.choice(SIZES))
        return Scene(kind, background, (_at_position(looks, position, rng),), position=position)
    if kind == "count":
        looks = (rng.choice(SHAPES), rng.choice(COLOURS), "small")
        return Scene(kind, background, _group(looks, rng.choice(COUNTS), rng))
    if kind != "pair":
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    relation = rng.choice(NORMAL_RELATIONS)
    kinds = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    pair = tuple((*look, rng.choice(SIZES)) for look in rng.sample(kinds, 2))
    return Scene(kind, background, _in_relation(pair, relation, rng), relation=relation)


def _at_position(looks: tuple[str, str, str], position: str, rng: random.Random) -> SceneObject:
    x, y = POSITION_CENTRES[position]
    return SceneObject(*looks, x + rng.uniform(-2, 2), y + rng.uniform(-2, 2), _radius(looks, rng))


def _group(looks: tuple[str, str, str], count: int, rng: random.Random) -> tuple[SceneObject, ...]:
    """Equal objects in cells of their own, so that they never touch."""
    radius = _radius(looks, rng)
    return tuple(
        SceneObject(*looks, x + rng.uniform(-1.5, 1.5), y + rng.uniform(-1.5, 1.5), radius)
        for x, y in rng.sample(_COUNT_CELLS, count)
    )


def _in_relation(
    pair: tuple[tuple[str, str, str], ...], relation: str, rng: random.Random
) -> tuple[SceneObject, ...]:
    """Two objects apart along the relation's axis, and about level along the other."""
    level = 32 + rng.uniform(-9, 9)
    objects = []
    for looks, centre in zip(pair, (16.5, 47.5), strict=True):
        along, across = centre + rng.uniform(-1.5, 1.5), level + rng.uniform(-2, 2)
        x, y = (along, across) if relation == "left of" else (across, along)
        objects.append(SceneObject(*looks, x, y, _radius(looks, rng)))
    return tuple(objects)


def _radius(looks: tuple[str, str, str], rng: random.Random) -> float:
    return rng.uniform(*_RADII[looks[2]])


def _alter_once(scene: Scene, rng: random.Random) -> Scene:
    if scene.kind == "pair" and rng.random() < _SWAP_SHARE:
        return _placed_anew(scene, str(scene.relation), rng, swapped=True)
    changes = ["shape", "colour", "background", "place"]
    change = rng.choice(changes + (["size"] if scene.kind != "count" else []))
    if change == "background":
        return replace(scene, background=rng.choice(BACKGROUNDS))
    if change != "place":
        return _with_look(scene, change, rng)
    if scene.kind == "pair":
        return _placed_anew(scene, rng.choice(NORMAL_RELATIONS), rng, swapped=False)
    looks = _looks(scene.objects[0])
    if scene.kind == "count":
        return replace(scene, objects=_group(looks, rng.choice(COUNTS), rng))
    position = rng.choice(POSITIONS)
    return replace(scene, objects=(_at_position(looks, position, rng),), position=position)


def _placed_anew(scene: Scene, relation: str, rng: random.Random, *, swapped: bool) -> Scene:
    """A pair in `relation`, its objects the other way round if `swapped`."""
    looks = tuple(map(_looks, scene.objects))
    order = looks[::-1] if swapped else looks
    return replace(scene, objects=_in_relation(order, relation, rng), relation=relation)


def _looks(thing: SceneObject) -> tuple[str, str, str]:
    return (thing.shape, thing.colour, thing.size)


def _with_look(scene: Scene, change: str, rng: random.Random) -> Scene:
    """`scene` with another shape, colour or size: of one of a pair, of all of a group."""
    chosen = rng.randrange(len(scene.objects)) if scene.kind == "pair" else None
    value = rng.choice({"shape": SHAPES, "colour": COLOURS, "size": SIZES}[change])
    objects = []
    for index, thing in enumerate(scene.objects):
        if chosen not in (None, index):
            objects.append(thing)
        elif change == "size":
            radius = rng.uniform(*_RADII[value])
            objects.append(replace(thing, size=value, radius=radius))
        elif change == "shape":
            objects.append(replace(thing, shape=value))
        else:
            objects.append(replace(thing, colour=value))
    if scene.kind == "pair" and len({(thing.shape, thing.colour) for thing in objects}) == 1:
        return scene  # a pair is of different objects: the caller draws again
    return replace(scene, objects=tuple(objects))


def _agrees(said: str | None, truth: str | None) -> bool:
    return said is None or said == truth


def _object_agrees(said: ObjectFacts, truth: ObjectFacts) -> bool:
    return (
        _agrees(said.colour, truth.colour)
        and _agrees(said.shape, truth.shape)
        and _agrees(said.size, truth.size)
    )
