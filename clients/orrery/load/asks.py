"""What a caller asks for. Knows neither the transport nor when it is asked.

    workload      asks for
    generation    a completion of token ids, streamed
    chat          an answer to a chat, streamed
    rag           an answer from the documents of a collection, streamed
    embeddings    vectors of a few texts
    images        a picture
    mixed         any of them that the subject allows, by `MIXED_SHARES`

Prompts are random, so that no prefix of one is cached from another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Literal, get_args

__all__ = [
    "MIXED_SHARES",
    "WORKLOADS",
    "Ask",
    "Chat",
    "Completion",
    "Picture",
    "Question",
    "Size",
    "Subject",
    "Texts",
    "Workload",
    "draw_ask",
]

Workload = Literal["generation", "chat", "embeddings", "rag", "images", "mixed"]
WORKLOADS: tuple[Workload, ...] = get_args(Workload)
MIXED_SHARES: Mapping[Workload, float] = MappingProxyType(
    {"generation": 0.30, "chat": 0.25, "embeddings": 0.25, "rag": 0.15, "images": 0.05}
)

_NUM_TEXTS = (1, 4)
_NUM_STEPS = 10
_SYLLABLES = ("ba", "cor", "del", "fin", "gar", "hol", "jin", "kel", "lum", "mar", "nor", "pel")
_COLOURS = ("red", "blue", "green", "yellow")
_SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True, slots=True)
class Size:
    """Tokens of a request's prompt (in a chat: roughly), and of the completion it asks for."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What requests are about: the model, its vocabulary, the documents' questions.

    Sizes are the least and the most tokens of requests that are not given one of their own.
    `mixture` is what `mixed` is made of. Raises `ValueError` where sizes are no such pair.
    """

    model: str
    vocab_size: int
    prompt_tokens: tuple[int, int] = (64, 256)
    output_tokens: tuple[int, int] = (128, 384)
    collection: str = ""
    questions: tuple[str, ...] = ()
    mixture: tuple[Workload, ...] = tuple(MIXED_SHARES)

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "output_tokens"):
            least, most = getattr(self, name)
            if not 1 <= least <= most:
                raise ValueError(f"{name}: expected 1 <= least <= most, got {least} {most}")


@dataclass(frozen=True, slots=True)
class Completion:
    """Exactly `max_tokens` tokens after a prompt: the end token does not end it."""

    model: str
    prompt: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Chat:
    """Exactly `max_tokens` tokens in answer to one message."""

    model: str
    message: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Question:
    """An answer from the documents of a collection."""

    text: str
    collection: str


@dataclass(frozen=True, slots=True)
class Texts:
    """Vectors of texts."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the model's own size."""

    prompt: str
    num_steps: int
    seed: int


Ask = Completion | Chat | Question | Texts | Picture


def draw_ask(
    workload: Workload, subject: Subject, rng: Random, size: Size | None = None
) -> tuple[Workload, Ask]:
    """The kind drawn and a request of it. `size` is for those that have a prompt and a completion.

    Raises `ValueError` where the workload is unknown, or asks questions and there are none.
    """
    if workload == "mixed":
        shares = [MIXED_SHARES[kind] for kind in subject.mixture]
        workload = rng.choices(subject.mixture, shares)[0]
    size = size or Size(rng.randint(*subject.prompt_tokens), rng.randint(*subject.output_tokens))
    return workload, _draw(workload, subject, rng, size)


def _draw(workload: Workload, subject: Subject, rng: Random, size: Size) -> Ask:
    match workload:
        case "generation":
            prompt = tuple(rng.choices(range(subject.vocab_size), k=size.prompt_tokens))
            return Completion(subject.model, prompt, size.output_tokens)
        case "chat":
            return Chat(subject.model, _sentence(rng, size.prompt_tokens // 2), size.output_tokens)
        case "rag":
            if not subject.questions:
                raise ValueError("questions: expected at least one for the workload 'rag'")
            return Question(rng.choice(subject.questions), subject.collection)
        case "embeddings":
            return Texts(tuple(_sentence(rng, 16) for _ in range(rng.randint(*_NUM_TEXTS))))
        case "images":
            prompt_text = f"a {rng.choice(_COLOURS)} {rng.choice(_SHAPES)}"
            return Picture(prompt_text, _NUM_STEPS, rng.randrange(1 << 31))
    raise ValueError(f"workload: expected one of {', '.join(WORKLOADS)}, got {workload!r}")


def _sentence(rng: Random, num_words: int) -> str:
    """Made-up words, about two tokens each."""
    return " ".join("".join(rng.choices(_SYLLABLES, k=2)) for _ in range(num_words))
