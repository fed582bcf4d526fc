"""Names composed from syllables, split by hash so that held-out names never appear in training.

A name is one or two stems and sometimes a type word ("Halvex Foundry"). The split is made on every
stem, which is stricter than on whole names: no stem of a held-out name occurs in training text.
"""

from __future__ import annotations

import hashlib
import random
from enum import Enum
from functools import lru_cache


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONSETS = _words(
    """
    Al Ar Ba Be Bo Bra Bri Ca Ce Cor Cra Da De Dor Dra El Er Fa Fe Fin Fro Ga Ge Gor Gra Ha Hel Ho
    Il Ja Jo Ka Ke Kor Kra La Le Lo Lu Ma Me Mi Mor Na Ne No Or Os Pa Pe Pra Qua Ra Re Ri Ro Sa Se
    Sol Sta Ta Te Tho Tor Tra Ul Ur Va Ve Vi Vor Wa We Wil Ya Yor Za Ze
    """
)
MIDDLES = _words(
    """
    ba be bi da de di do fa ga go ka ke la le li lo ma me mi mo na ne ni no pa ra re ri ro sa se
    si so ta te ti to va ve vi vo za
    """
)
ENDINGS = {
    "first": _words("bel dan den fa kin la lia lin mir na nel ric ris ro sa vin wen zel"),
    "last": _words(
        "bar beck berg by cott der dov gren kel land lo man mont nov rick sen ser ton vic witz"
    ),
    "town": _words(
        "brook burg dale fell ford ham haven holm mere mouth nes port stad ster thorpe wick"
    ),
    "thing": _words(
        "ba dine don dor gon lex lith lor max mon nis phon rine ron rus tar tex tis tron vane"
    ),
    "nature": _words("ak bis dil dra fen gar gul lak lops mar nix pik ra rix tak tor vul wing"),
}
TYPE_WORDS = {
    "organisation": _words("Foundry Institute Company Guild Press Society Trust Works"),
    "book": _words("Chronicle Letters Almanac Ballad Papers Tales"),
    "building": _words("Tower Bridge Hall Gate Palace Lighthouse"),
    "festival": _words("Fair Feast Parade Revels Games"),
    "prize": _words("Prize Medal Award"),
}
_STEM_STYLE = {
    "organisation": "last",
    "town": "town",
    "ship": "thing",
    "instrument": "thing",
    "book": "thing",
    "building": "town",
    "festival": "last",
    "animal": "nature",
    "prize": "last",
    "river": "nature",
    "region": "thing",
}
_ENGLISH = {"Hello"}  # syllables that happen to make a word of the chat turns
HELD_OUT_SHARE = 8  # one stem in this many is held out


class Split(Enum):
    """Which side of the name split a text is written from."""

    TRAIN = "train"
    HELD_OUT = "held-out"


@lru_cache(maxsize=1 << 18)
def split_of(stem: str) -> Split:
    """The split a stem belongs to, from the first byte of its SHA-256."""
    digest = hashlib.sha256(stem.encode()).digest()
    return Split.HELD_OUT if digest[0] % HELD_OUT_SHARE == 0 else Split.TRAIN


def stems_of(name: str) -> list[str]:
    """The stems of a name: its words without type words."""
    type_words = {word for words in TYPE_WORDS.values() for word in words}
    return [word for word in name.split() if word not in type_words]


class Namer:
    """Draws names of one split from a seeded random generator."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self._rng = rng
        self._split = split

    def name(self, kind: str) -> str:
        """A fresh name for an entity of `kind` (a `Kind.name`, or prize, river, region)."""
        if kind == "person":
            return f"{self._stem('first')} {self._stem('last')}"
        stem = self._stem(_STEM_STYLE[kind])
        words = TYPE_WORDS.get(kind)
        return f"{stem} {self._rng.choice(words)}" if words else stem

    def near_miss(self, name: str, kind: str) -> str:
        """A name easily confused with `name`: one stem replaced, or one syllable of it."""
        words = name.split()
        place = self._rng.randrange(2) if kind == "person" else 0
        style = ("first", "last")[place] if kind == "person" else _STEM_STYLE[kind]
        while True:
            stem = self._stem(style)
            if self._rng.random() < 0.6:
                stem = self._graft(words[place], style)
            candidate = " ".join([*words[:place], stem, *words[place + 1 :]])
            usable = split_of(stem) is self._split and stem not in _ENGLISH
            if candidate != name and usable:
                return candidate

    def _stem(self, style: str) -> str:
        rng = self._rng
        while True:
            middle = rng.choice(MIDDLES) if rng.random() < 0.45 else ""
            stem = rng.choice(ONSETS) + middle + rng.choice(ENDINGS[style])
            if split_of(stem) is self._split and stem not in _ENGLISH:
                return stem

    def _graft(self, stem: str, style: str) -> str:
        """Keep the beginning of a stem and exchange its ending, or the other way round."""
        ending = next((e for e in sorted(ENDINGS[style], key=len)[::-1] if stem.endswith(e)), "")
        if self._rng.random() < 0.5:
            return stem[: len(stem) - len(ending)] + self._rng.choice(ENDINGS[style])
        return self._rng.choice(ONSETS) + ending
