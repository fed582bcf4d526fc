"""All kinds of entity of the fictional world, in the order the corpus draws them."""

from __future__ import annotations

from training.kinds_society import FESTIVAL, ORGANISATION, PERSON, TOWN
from training.kinds_things import ANIMAL, BOOK, BUILDING, INSTRUMENT, SHIP
from training.relations import Kind

KINDS: tuple[Kind, ...] = (
    PERSON,
    ORGANISATION,
    TOWN,
    SHIP,
    INSTRUMENT,
    BOOK,
    BUILDING,
    FESTIVAL,
    ANIMAL,
)
