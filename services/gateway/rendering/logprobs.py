"""Log-probabilities in the three shapes that clients know: chat, completions, prompt (vLLM's)."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orrery.v1 import common_pb2

__all__ = ["CompletionLogprobs", "chat_logprobs", "prompt_logprobs"]

# JSON has no -inf; OpenAI's API writes this number for it.
LOWEST_LOGPROB = -9999.0


def chat_logprobs(positions: Iterable[common_pb2.PositionLogprobs]) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    content = [
        _chat_token(position.chosen) | {"top_logprobs": [_chat_token(t) for t in position.top]}
        for position in positions
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs(
    positions: Iterable[common_pb2.PositionLogprobs],
) -> list[dict[str, Any] | None]:
    """One entry per prompt token: token id -> log-probability, rank, text. Null for the first."""
    return [
        {str(t.token_id): _ranked(t) for t in (*position.top, position.chosen)}
        if position.HasField("chosen")
        else None
        for position in positions
    ]


@dataclass(slots=True)
class CompletionLogprobs:
    """The `logprobs` of a completion, grown token by token; `text_offset` counts characters.

    `offset` is where the next token begins in the text that the choice returns. A token that is
    a part of a character begins where the character does.
    """

    offset: int = 0
    tokens: list[str] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def extend(self, positions: Iterable[common_pb2.PositionLogprobs]) -> None:
        """Appends generated tokens."""
        for position in positions:
            self._append(position)
            self.offset += len(self._decoder.decode(position.chosen.token_bytes))

    def extend_echo(
        self, positions: Iterable[common_pb2.PositionLogprobs], first_token: str, text: str
    ) -> None:
        """Appends the prompt's tokens. `text` is the echoed prompt.

        The first token has no log-probability, so its text comes apart. One that the tokenizer
        added (BOS) is not in the text and has no width, and neither has the space that some
        tokenizers put before the first word.
        """
        for position in positions:
            if position.HasField("chosen"):
                self._append(position)
                width = self._decoder.decode(position.chosen.token_bytes)
            else:
                self.tokens.append(first_token)
                self.token_logprobs.append(None)
                self.top_logprobs.append(None)
                self.text_offset.append(self.offset)
                width = first_token
            if self.offset == 0 and width and not text.startswith(width):
                width = width[1:] if text.startswith(width[1:]) and width[0] == " " else ""
            self.offset += len(width)

    def take(self) -> dict[str, Any]:
        """What was appended since the last call, as JSON."""
        taken = {
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        }
        self.tokens, self.token_logprobs, self.top_logprobs, self.text_offset = [], [], [], []
        return taken

    def _append(self, position: common_pb2.PositionLogprobs) -> None:
        chosen = position.chosen
        self.tokens.append(_token_text(chosen))
        self.token_logprobs.append(_finite(chosen.logprob))
        top: dict[str, float] = {}
        # Two tokens may have one text: the likelier stays. The chosen one is always there.
        for token in (*position.top, chosen):
            top.setdefault(_token_text(token), _finite(token.logprob))
        self.top_logprobs.append(top)
        self.text_offset.append(self.offset)


def _chat_token(token: common_pb2.TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.token,
        "logprob": _finite(token.logprob),
        "bytes": list(token.token_bytes),
    }


def _ranked(token: common_pb2.TokenLogprob) -> dict[str, Any]:
    return {
        "logprob": _finite(token.logprob),
        "rank": token.rank,
        "decoded_token": _token_text(token),
    }


def _token_text(token: common_pb2.TokenLogprob) -> str:
    """The token's text; a part of a character as `bytes:\\xe2\\x80`, OpenAI's spelling."""
    try:
        return token.token_bytes.decode() or token.token
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.token_bytes)


def _finite(logprob: float) -> float:
    return max(logprob, LOWEST_LOGPROB)
