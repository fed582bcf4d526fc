"""Rendering chat messages to the text a model was trained on. Knows nothing of token ids.

The template is the model's own, from its folder, and is run the way Hugging Face transformers
runs it, so that the same conversation gives the same text. It is code that came with a
checkpoint: it runs in jinja's sandbox, and sees plain data only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
from tokenizers import AddedToken

from services.engine.errors import ConfigError, InvalidRequestError

__all__ = ["ChatTemplate", "ControlTokens", "Message", "check_messages", "load_chat_template"]

Message = Mapping[str, Any]

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class ChatTemplate:
    """A model's chat template. Raises `ConfigError` (`chat_template`) if it does not compile."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens` (`bos_token`, `eos_token`, ...) are variables of the template."""
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError("chat_template", f"is not a valid template: {error}") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The conversation as text, ending where the assistant's turn begins if asked for.

        Raises `InvalidRequestError` naming `messages` when they are not a conversation at all or
        the template refuses them (an unknown role, turns that do not alternate, ...).
        """
        check_messages(messages)
        # A template tests whether a key is there: None, as some clients send, means it is not.
        present = [{k: v for k, v in message.items() if v is not None} for message in messages]
        try:
            return self._template.render(
                messages=present,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            # jinja wraps its own errors only; a template that adds a list to a string raises
            # Python's. Either way these messages are not what the template expects.
            raise InvalidRequestError(
                "messages", f"the model's chat template does not accept them: {error}"
            ) from error


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `InvalidRequestError` naming `messages` unless they have the shape of a conversation.

    A conversation is a non-empty list of mappings, each with a `role`, whose `content` is a
    string, a list of parts, or absent. What else it must be is the template's to say.
    """
    if not messages:
        raise InvalidRequestError("messages", "expected at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InvalidRequestError("messages", f"expected an object at index {i}")
        role = message.get("role")
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise InvalidRequestError(
                "messages", f"expected a role such as 'user' at index {i}, got {role!r:.80}"
            )
        if not isinstance(message.get("content"), str | list | tuple | None):
            raise InvalidRequestError("messages", f"expected text as the content at index {i}")


class ControlTokens:
    """Keeps apart the control tokens that a template writes and those that a message quotes.

    A user who writes `<|im_end|><|im_start|>system` must not thereby end a turn and begin
    another: in a message these are letters. So they are marked before the template runs, and
    what it writes itself is found, unmarked, in the result.
    """

    _MARK = "\ufdd0"  # a noncharacter: no text that is meant to be read has one

    def __init__(self, tokens: Mapping[int, AddedToken]) -> None:
        self._ids = {token.content: token_id for token_id, token in tokens.items()}
        longest_first = sorted(tokens.values(), key=lambda token: len(token.content), reverse=True)
        # A token of one character cannot be marked inside.
        texts = [token for token in longest_first if len(token.content) > 1]
        self._quoted = _any_of(re.escape(token.content) for token in texts)
        self._written = _any_of(
            (r"\s*" if token.lstrip else "")
            + f"({re.escape(token.content)})"
            + (r"\s*" if token.rstrip else "")
            for token in texts
        )

    def mark(self, value: Any) -> Any:
        """`value`, any JSON, with the control tokens in its strings broken by a mark."""
        if isinstance(value, str):
            return self._quoted.sub(lambda match: match[0][0] + self._MARK + match[0][1:], value)
        if isinstance(value, Mapping):
            return {key: self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        return value

    def any_marked(self, text: str) -> bool:
        return self._MARK in text

    def split(self, text: str) -> Iterator[tuple[str, int | None]]:
        """Cut `text`, rendered from marked messages, at the control tokens that are unmarked.

        Yields the plain text before each, without marks, and the token's id; at the end, None.
        """
        end = 0
        for match in self._written.finditer(text):
            token = next(group for group in match.groups() if group is not None)
            yield text[end : match.start()].replace(self._MARK, ""), self._ids[token]
            end = match.end()
        yield text[end:].replace(self._MARK, ""), None


def _any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(patterns) or r"(?!)")  # the latter matches nowhere


def load_chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The source of the folder's chat template, or None if it has none.

    In Hugging Face's order: `chat_template.jinja`, else `chat_template` of `config`
    (tokenizer_config.json), which is a string or a list of named templates. Of several the one
    named "default" is used. Raises `ConfigError` (`chat_template`) when there is no such.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = config.get("chat_template")
    if isinstance(source, list):
        source = {entry.get("name"): entry.get("template") for entry in source}.get("default")
        if source is None:
            raise ConfigError(
                "chat_template", 'expected one of its templates to be named "default"'
            )
    if not isinstance(source, str | None):
        raise ConfigError("chat_template", "expected a string or a list of named templates")
    return source


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant wrote, for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own declaration

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes HTML, which would change the prompt.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
