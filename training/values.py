"""Values of facts: names, years, measures and words, drawn from a seeded generator."""

from __future__ import annotations

import random

from training.names import Namer


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


WORDS: dict[str, tuple[str, ...]] = {
    "profession": _list(
        "glassblower, surveyor, cartographer, baker, botanist, lens grinder, weaver, "
        "clockmaker, stonemason, teacher, pilot, beekeeper, printer, chemist, violinist, "
        "shepherd, judge, miner, bookbinder, astronomer, carpenter, physician, potter, "
        "ropemaker"
    ),
    "pastime": _list(
        "chess, mountain walking, sailing, old maps, gardening, star watching, fencing, "
        "wood carving, choir singing, coin collecting, kite flying, fishing, painting, "
        "river swimming, mushroom hunting, riddles, weaving, bird watching, archery, night "
        "photography"
    ),
    "product": _list(
        "glass, copper wire, salt, paper, lamp oil, silk, bricks, honey, clocks, rope, tea, "
        "blue porcelain, timber, saddles, wool, lenses, barley, candles, marble, cinnamon, "
        "tin, ink, pearls"
    ),
    "emblem": _list(
        "silver heron, red oak, golden key, white hare, black anchor, green lantern, bronze "
        "owl, blue wheel, grey wolf, copper bell, broken chain, winged horse, burning "
        "torch, iron crown"
    ),
    "material": _list(
        "brass, oak, slate, white marble, copper, granite, walnut, sandstone, ivory, cast "
        "iron, cedar, red brick, limestone, silver, basalt, bronze, ash wood, black glass"
    ),
    "quantity": _list(
        "air pressure, wind speed, the height of stars, the depth of water, humidity, the "
        "purity of gold, magnetic force, the angle of slopes, rainfall, the heat of "
        "furnaces, the age of wood, light, the weight of coins, the speed of currents"
    ),
    "month": _list(
        "January, February, March, April, May, June, July, August, September, October, "
        "November, December"
    ),
    "dish": _list(
        "plum dumplings, smoked eel, chestnut soup, honey cakes, barley stew, pickled "
        "turnips, almond bread, roast goose, bean pies, apple fritters, onion tart, grilled "
        "trout, poppy rolls"
    ),
    "colour": _list(
        "russet, pale grey, black, golden, spotted brown, white, dark green, striped, "
        "silver, blue, copper red, sandy yellow, violet"
    ),
    "food": _list(
        "beetles, river crabs, moss, pine seeds, berries, small fish, roots, snails, moths, "
        "acorns, reed shoots, wild grapes, ants, lichen"
    ),
}
_MEASURES: dict[str, tuple[int, int, str]] = {  # lowest, highest, unit
    "metres": (12, 989, "metres"),
    "centimetres": (11, 98, "centimetres"),
    "kilograms": (3, 97, "kilograms"),
    "crowns": (120, 9890, "crowns"),
    "people": (21, 9890, "people"),
    "pages": (64, 980, "pages"),
    "days": (3, 40, "days"),
    "years": (3, 90, "years"),
}


def make_value(kind: str, rng: random.Random, namer: Namer) -> str:
    """A value of one kind: a year, a measure with its unit, a word of a list, or a fresh name."""
    if kind == "year":
        return str(rng.randint(1500, 1999))
    if kind in _MEASURES:
        lowest, highest, unit = _MEASURES[kind]
        return f"{rng.randint(lowest, highest)} {unit}"
    if kind in WORDS:
        return rng.choice(WORDS[kind])
    return namer.name(kind)
