"""Text to token ids and back, from a model's folder. Knows nothing of the engine.

A thin layer over the `tokenizers` library; transformers is imported only for a folder that has no
`tokenizer.json`, to convert what it has. The ids are those that transformers gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as BackendTokenizer

from services.engine.chat_template import (
    ChatTemplate,
    ControlTokens,
    Message,
    check_messages,
    load_chat_template,
)
from services.engine.errors import ConfigError, InvalidRequestError
from services.engine.vocabulary import Vocabulary

__all__ = ["Tokenizer"]

_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A model's tokenizer and chat template.

    Safe to share between threads: nothing changes after construction but caches.

    bos_token_id: begins a text, None if the model has no such token.
    eos_token_ids: each of them ends a text; may be empty.
    """

    def __init__(
        self,
        backend: BackendTokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_template: str | None = None,
        more_eos_token_ids: Iterable[int] = (),
    ) -> None:
        """`special_tokens` maps `bos_token`, `eos_token`, ... to tokens of the vocabulary.

        `more_eos_token_ids` end a sequence as well as `eos_token`. Raises `ConfigError` for a
        decoder or a chat template that cannot be used.
        """
        special_tokens = dict(special_tokens or {})
        backend.no_truncation()  # what does not fit is an error, never cut silently
        backend.no_padding()
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens(
            [
                AddedToken(token, special=True)
                for token in special_tokens.values()
                if token not in added and backend.token_to_id(token) is not None
            ]
        )
        self._backend = backend
        self._vocabulary = Vocabulary(backend)
        self._chat_template = (
            None if chat_template is None else ChatTemplate(chat_template, special_tokens)
        )
        self._control_tokens = ControlTokens(
            {i: token for i, token in backend.get_added_tokens_decoder().items() if token.special}
        )
        self.bos_token_id = _token_id(backend, special_tokens.get("bos_token"))
        eos_token_id = _token_id(backend, special_tokens.get("eos_token"))
        own = () if eos_token_id is None else (eos_token_id,)
        self.eos_token_ids: tuple[int, ...] = tuple(dict.fromkeys((*own, *more_eos_token_ids)))

    @classmethod
    def from_folder(cls, path: str | Path) -> Tokenizer:
        """Load from a Hugging Face model folder.

        Reads `tokenizer.json`, which also says whether a text begins with BOS;
        `tokenizer_config.json` (and the older `special_tokens_map.json`) for the special tokens;
        `chat_template.jinja`; `generation_config.json` for further end-of-sequence ids.

        Raises `ConfigError` naming the file that is missing or wrong.
        """
        folder = Path(path)
        config = {
            **_read_json(folder / "special_tokens_map.json"),
            **_read_json(folder / "tokenizer_config.json"),
        }
        return cls(
            _load_backend(folder),
            _special_tokens(config),
            load_chat_template(folder, config),
            _generation_eos_token_ids(folder),
        )

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included. A model's own vocabulary may be padded larger."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def has_chat_template(self) -> bool:
        return self._chat_template is not None

    @property
    def num_leading_spaces(self) -> int:
        """Spaces that encoding puts before a text, and decoding drops."""
        return self._vocabulary.num_leading_spaces

    @property
    def special_token_ids(self) -> frozenset[int]:
        """The tokens that `skip_special_tokens` skips."""
        return self._vocabulary.special_token_ids

    def encode(
        self, text: str, add_special_tokens: bool = True, *, field: str = "prompt"
    ) -> list[int]:
        """The token ids of `text`, with what the model expects around it (BOS) unless told not to.

        Raises `InvalidRequestError` naming `field` if `text` holds a lone surrogate, which no
        UTF-8 text can.
        """
        _check_unicode(text, field)
        encoding = self._backend.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def encode_chat(
        self, messages: Sequence[Message], add_generation_prompt: bool = True
    ) -> list[int]:
        """The token ids of a conversation, as the model's chat template writes it.

        A special token that stands in a message is encoded as the letters it is made of: only the
        template decides where turns begin and end. Raises `InvalidRequestError` naming `messages`
        if the model has no template, or the template does not accept them.
        """
        if self._chat_template is None:
            raise InvalidRequestError("messages", "the model has no chat template; send a prompt")
        check_messages(messages)
        marked = self._control_tokens.mark(messages)
        text = self._chat_template.render(marked, add_generation_prompt=add_generation_prompt)
        if not self._control_tokens.any_marked(text):
            return self.encode(text, add_special_tokens=False, field="messages")
        _check_unicode(text, "messages")
        ids: list[int] = []
        for plain, token_id in self._control_tokens.split(text):
            if plain:
                ids += self._literal_backend.encode(plain, add_special_tokens=False).ids
            if token_id is not None:
                ids.append(token_id)
        return ids

    @cached_property
    def _literal_backend(self) -> BackendTokenizer:
        """The same tokenizer, but one that reads special tokens as plain text."""
        backend = BackendTokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`. Bytes that are not UTF-8 become U+FFFD.

        Equal to `tokenizers`, except that an invalid byte next to a valid character made of
        byte tokens does not spoil that character too, and an added token is always its own text.
        """
        text = self._vocabulary.join(token_ids, skip_special_tokens).decode("utf-8", "replace")
        for _ in range(self._vocabulary.num_leading_spaces):
            text = text.removeprefix(" ")
        return text

    def token_text(self, token_id: int) -> str:
        """The text of one token by itself; U+FFFD for what is not whole characters."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, a leading space included; empty for an unknown id."""
        return self._vocabulary.token_bytes(token_id)


def _check_unicode(text: str, field: str) -> None:
    surrogate = _SURROGATE.search(text)
    if surrogate:
        raise InvalidRequestError(
            field,
            f"expected Unicode text, got the lone surrogate U+{ord(surrogate[0]):04X} "
            f"at character {surrogate.start()}",
        )


def _token_id(backend: BackendTokenizer, token: str | None) -> int | None:
    if token is None:
        return None
    token_id: int | None = backend.token_to_id(token)
    return token_id


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(file.name, f"is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(file.name, "expected a JSON object")
    return content


def _load_backend(folder: Path) -> BackendTokenizer:
    file = folder / "tokenizer.json"
    if file.is_file():
        try:
            return BackendTokenizer.from_file(str(file))
        except Exception as error:  # `tokenizers` raises no other type
            raise ConfigError(file.name, f"cannot be read: {error}") from error
    from transformers import AutoTokenizer  # slow to import, and rarely needed

    try:
        converted = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, ImportError, TypeError, KeyError) as error:
        raise ConfigError(
            "tokenizer.json", f"is missing in {folder}, and nothing there converts to it: {error}"
        ) from error
    backend: BackendTokenizer | None = getattr(converted, "backend_tokenizer", None)
    if backend is None:
        raise ConfigError(
            "tokenizer.json", f"is missing in {folder}, and its tokenizer does not convert to it"
        )
    return backend


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens, each a string or an object with its `content`."""
    found = {}
    for name in _SPECIAL_TOKENS:
        value = config.get(name)
        token = value.get("content") if isinstance(value, dict) else value
        if not isinstance(token, str | None):
            raise ConfigError("tokenizer_config.json", f"expected a string as {name}")
        if token is not None:
            found[name] = token
    return found


def _generation_eos_token_ids(folder: Path) -> tuple[int, ...]:
    value = _read_json(folder / "generation_config.json").get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(i, int) and i >= 0 for i in ids):
        raise ConfigError("generation_config.json", "expected token ids as eos_token_id")
    return tuple(ids)
