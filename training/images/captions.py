"""The grammar of captions: facts to words, and words back to facts.

Knows nothing of pixels. `caption` words a scene; parts may be left out (size, position, relation,
background), never the colour and the shape. `vague_caption` leaves out these too ("a red object"):
for an encoder that is asked about one attribute at a time.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from training.images.scenes import (
    COLOURS,
    MIRRORED,
    NORMAL_RELATIONS,
    POSITIONS,
    SHAPES,
    Facts,
    ObjectFacts,
    Scene,
    facts_of,
)

TEMPLATES = ("a picture of ", "an image of ", "a drawing of ", "a photo of ")
NOUNS = ("object", "shape")
NUMBERS = {"two": 2, "three": 3, "four": 4}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
BACKGROUND_WORDS = {"white": ("white",), "grey": ("grey", "gray"), "black": ("black",)}
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under"),
}
UNSAID_RELATION_WORDS = ("and", "next to", "with")


def _position_words(position: str) -> tuple[str, ...]:
    if position == "centre":
        return ("in the centre", "in the middle", "in the center", "at the centre")
    if position in ("top", "bottom"):
        return (f"at the {position}", f"at the {position} centre", f"in the {position} centre")
    if position in ("left", "right"):
        return (f"at the {position}", f"on the {position}", f"at the centre {position}")
    return (f"at the {position}", f"in the {position}", f"in the {position} corner")


POSITION_WORDS = {position: _position_words(position) for position in POSITIONS}


def caption(scene: Scene, rng: random.Random, *, full: bool = False) -> str:
    """A caption true of `scene`; `full`: nothing is left out."""
    return phrase(facts_of(scene) if full else some_facts(scene, rng), rng)


def vague_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that names one or two attributes of the objects, and may not say which object."""
    return phrase(few_facts(scene, rng), rng)


def some_facts(scene: Scene, rng: random.Random) -> Facts:
    """The facts of `scene` with optional parts left out at random."""
    facts = facts_of(scene)
    relation = facts.relation if rng.random() < 0.85 else None
    things = tuple(
        replace(thing, size=thing.size if rng.random() < 0.4 else None) for thing in facts.objects
    )
    return replace(
        facts,
        objects=_shuffled(things, relation, rng),
        position=facts.position if rng.random() < 0.75 else None,
        relation=relation,
        background=facts.background if rng.random() < 0.4 else None,
    )


def few_facts(scene: Scene, rng: random.Random) -> Facts:
    """A few facts of `scene`; objects may lack colour, shape or both."""
    facts = facts_of(scene)
    relation = facts.relation if rng.random() < 0.85 else None
    said = [rng.choice(("colour", "shape", "colour", "shape", "size", "none", "both"))] * 2
    if facts.kind == "pair":  # a relation between things that nothing is said of says nothing
        said = [rng.choice(("colour", "shape", "both")) for _ in range(2)]
    things = tuple(map(_reduced, facts.objects, said))
    return replace(
        facts,
        objects=_shuffled(things, relation, rng),
        position=facts.position if rng.random() < 0.5 or said[0] == "none" else None,
        relation=relation,
        background=facts.background if rng.random() < 0.25 else None,
    )


def phrase(facts: Facts, rng: random.Random) -> str:
    """Words for `facts`, chosen at random among the grammar's."""
    noun = rng.choice(NOUNS)
    if facts.kind == "pair":
        text = _pair(facts, noun, rng)
    elif facts.kind == "count":
        number = next(word for word, count in NUMBERS.items() if count == facts.count)
        text = f"{number} {_plural(_noun_phrase(facts.objects[0], noun, rng))}"
    else:
        text = _with_article(_noun_phrase(facts.objects[0], noun, rng))
    if facts.position is not None:
        text += " " + rng.choice(POSITION_WORDS[facts.position])
    if facts.background is not None:
        colour = rng.choice(BACKGROUND_WORDS[facts.background])
        if rng.random() < 0.2:
            return f"on a {colour} background, {text}"
        text += f" on a {colour} background"
    return (rng.choice(TEMPLATES) if rng.random() < 0.6 else "") + text


def parse(text: str) -> Facts:
    """What a caption of the grammar says. Raises ValueError at a text outside the grammar."""
    match = _CAPTION.fullmatch(" ".join(text.lower().split()).rstrip("."))
    if match is None:
        raise ValueError(f"caption: expected a sentence of the grammar, got {text!r}")
    groups = match.groupdict()
    background = groups["background"] or groups["background_first"]
    if groups["number"]:
        objects, count = [_object(groups, "1", plural=True)], NUMBERS[groups["number"]]
    else:
        objects, count = [_object(groups, "1")], 1
    relation = _RELATION_OF.get(groups["relation"] or "")
    if groups["relation"]:
        objects.append(_object(groups, "2"))
    if relation is not None and relation not in NORMAL_RELATIONS:
        relation, objects = MIRRORED[relation], objects[::-1]
    return Facts(
        objects=tuple(objects),
        count=count,
        position=_POSITION_OF.get(groups["position"] or ""),
        relation=relation,
        background=_BACKGROUND_OF.get(background or ""),
    )


def words() -> tuple[str, ...]:
    """Every word of the grammar, sorted."""
    texts = [*TEMPLATES, *NUMBERS, *UNSAID_RELATION_WORDS, "on a background", "an"]
    for table in (SIZE_WORDS, BACKGROUND_WORDS, RELATION_WORDS, POSITION_WORDS):
        texts += [text for several in table.values() for text in several]
    for name in (*SHAPES, *NOUNS):
        texts += [name, _plural(name)]
    return tuple(sorted({word for text in (*texts, *COLOURS) for word in text.split()}))


def _pair(facts: Facts, noun: str, rng: random.Random) -> str:
    first, second = (_with_article(_noun_phrase(thing, noun, rng)) for thing in facts.objects)
    if facts.relation is None:
        return f"{first} {rng.choice(UNSAID_RELATION_WORDS)} {second}"
    if rng.random() < 0.5:
        return f"{first} {rng.choice(RELATION_WORDS[facts.relation])} {second}"
    return f"{second} {rng.choice(RELATION_WORDS[MIRRORED[facts.relation]])} {first}"


def _noun_phrase(thing: ObjectFacts, noun: str, rng: random.Random) -> str:
    size = rng.choice(SIZE_WORDS[thing.size]) if thing.size else None
    return " ".join(word for word in (size, thing.colour, thing.shape or noun) if word)


def _with_article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith("s") else "s")


def _reduced(thing: ObjectFacts, said: str) -> ObjectFacts:
    return ObjectFacts(
        colour=thing.colour if said in ("colour", "both") else None,
        shape=thing.shape if said in ("shape", "both") else None,
        size=thing.size if said == "size" else None,
    )


def _shuffled(
    things: tuple[ObjectFacts, ...], relation: str | None, rng: random.Random
) -> tuple[ObjectFacts, ...]:
    """Without a relation the order says nothing, so it must not tell."""
    return things[::-1] if relation is None and rng.random() < 0.5 else things


def _inverse(table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    return {text: name for name, texts in table.items() for text in texts}


_SIZE_OF = _inverse(SIZE_WORDS)
_BACKGROUND_OF = _inverse(BACKGROUND_WORDS)
_RELATION_OF = _inverse(RELATION_WORDS)
_POSITION_OF = _inverse(POSITION_WORDS)
_SINGULAR = {_plural(noun): noun for noun in (*SHAPES, *NOUNS)}


def _object(groups: dict[str, str | None], suffix: str, *, plural: bool = False) -> ObjectFacts:
    noun = str(groups["noun" + suffix])
    if plural != (noun in _SINGULAR):
        raise ValueError(f"caption: singular and plural do not agree at {noun!r}")
    name = _SINGULAR.get(noun, noun)
    return ObjectFacts(
        colour=groups["colour" + suffix],
        shape=name if name in SHAPES else None,
        size=_SIZE_OF.get(groups["size" + suffix] or ""),
    )


def _any(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _object_pattern(suffix: str) -> str:
    nouns = (*SHAPES, *NOUNS, *_SINGULAR)
    return (
        rf"(?:(?P<size{suffix}>{_any(_SIZE_OF)}) )?(?:(?P<colour{suffix}>{_any(COLOURS)}) )?"
        rf"(?P<noun{suffix}>{_any(nouns)})"
    )


_CAPTION = re.compile(
    rf"(?:on an? (?P<background_first>{_any(_BACKGROUND_OF)}) background, )?"
    rf"(?:{_any(template.strip() for template in TEMPLATES)})? ?"
    rf"(?:an? |(?P<number>{_any(NUMBERS)}) )?{_object_pattern('1')}"
    rf"(?: (?P<relation>{_any((*_RELATION_OF, *UNSAID_RELATION_WORDS))}) an? "
    rf"{_object_pattern('2')})?"
    rf"(?: (?P<position>{_any(_POSITION_OF)}))?"
    rf"(?: on an? (?P<background>{_any(_BACKGROUND_OF)}) background)?"
)
