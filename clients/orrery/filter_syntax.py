"""Filters written as a text: `year >= 1900 and kind in ("ship", "port") and not flag exists`.

    expression  = conjunction { "or" conjunction }
    conjunction = condition { "and" condition }
    condition   = "not" condition | "(" expression ")" | comparison
    comparison  = name ("=" | "!=" | ">" | ">=" | "<" | "<=") value
                | name ["not"] "in" "(" value { "," value } ")"
                | name "exists"

Texts stand in quotes, 'single' or "double"; numbers, `true` and `false` do not. A name with
characters other than letters, digits, `_`, `.` and `-`, or one of the words above, stands in
`backquotes`. Knows nothing of the terminal and of protobuf.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

from orrery.errors import InvalidRequestError
from orrery.filters import KEYWORDS, Field, Filter, FilterValue

__all__ = ["parse_filter"]

_MAX_DEPTH = 50
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<quoted>`(?:[^`\\]|\\.)+`)
    | (?P<word>[A-Za-z_][A-Za-z0-9_.\-]*)
    | (?P<operator>>=|<=|!=|<>|==|=|<|>)
    | (?P<mark>[()\[\],])
    )""",
    re.VERBOSE | re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """The keyword that it is, or an empty text."""
        word = self.text.lower()
        return word if self.kind == "word" and word in KEYWORDS else ""


def parse_filter(text: str) -> Filter:
    """The filter that a text stands for.

    Raises:
        InvalidRequestError: The text is no filter; the message says where and what was expected.
    """
    parser = _Parser(text)
    found = parser.expression(0)
    parser.expect_end()
    return found


class _Parser:
    """Recursive descent, one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0

    def expression(self, depth: int) -> Filter:
        found = self._conjunction(depth)
        while self._take_keyword("or"):
            found = found | self._conjunction(depth)
        return found

    def expect_end(self) -> None:
        if self._token.kind != "end":
            raise self._error("and, or, or the end")

    def _conjunction(self, depth: int) -> Filter:
        found = self._condition(depth)
        while self._take_keyword("and"):
            found = found & self._condition(depth)
        return found

    def _condition(self, depth: int) -> Filter:
        if depth > _MAX_DEPTH:
            raise self._error(f"at most {_MAX_DEPTH} conditions inside one another")
        if self._take_keyword("not"):
            return ~self._condition(depth + 1)
        if self._take_mark("("):
            found = self.expression(depth + 1)
            if not self._take_mark(")"):
                raise self._error("and, or, or ')'")
            return found
        return self._comparison()

    def _comparison(self) -> Filter:
        field = Field(self._name())
        operator = self._token
        if operator.kind == "operator":
            self._next += 1
            return _compared(field, operator.text, self._value())
        if self._take_keyword("exists"):
            return field.exists()
        if self._take_keyword("in"):
            return field.in_(self._values())
        if self._take_keyword("not"):
            if not self._take_keyword("in"):
                raise self._error("in")
            return field.not_in(self._values())
        raise self._error(f"=, !=, <, <=, >, >=, in, not in or exists after {field.name!r}")

    def _name(self) -> str:
        token = self._token
        if token.kind == "quoted":
            self._next += 1
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        if token.kind != "word" or token.keyword:
            raise self._error("the name of a field")
        self._next += 1
        return token.text

    def _values(self) -> list[FilterValue]:
        opening = self._token.text
        if opening not in _CLOSING or self._token.kind != "mark":
            raise self._error("'(' and values")
        self._next += 1
        values = [self._value()]
        while self._take_mark(","):
            values.append(self._value())
        if not self._take_mark(_CLOSING[opening]):
            raise self._error(f"',' or {_CLOSING[opening]!r}")
        return values

    def _value(self) -> FilterValue:
        token = self._token
        if token.keyword in ("true", "false"):
            self._next += 1
            return token.keyword == "true"
        if token.kind == "number":
            self._next += 1
            number = float(token.text)  # infinite where it fits none, and then refused
            whole = re.fullmatch(r"[+-]?\d+", token.text) and math.isfinite(number)
            return int(token.text) if whole else number
        if token.kind == "text":
            self._next += 1
            return self._unquoted(token)
        hint = f' (a text stands in quotes: "{token.text}")' if token.kind == "word" else ""
        raise self._error(f"a value{hint}")

    def _unquoted(self, token: _Token) -> str:
        if token.text[0] == "'":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
        try:
            return str(json.loads(token.text, strict=False))
        except json.JSONDecodeError:
            raise self._error("a text with the escapes of JSON", token) from None

    def _take_keyword(self, word: str) -> bool:
        return self._take(self._token.keyword == word)

    def _take_mark(self, mark: str) -> bool:
        return self._take(self._token.kind == "mark" and self._token.text == mark)

    def _take(self, wanted: bool) -> bool:
        self._next += wanted
        return wanted

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        end = len(self._text.rstrip())
        at = 0
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                unknown = _Token("unknown", self._text[at : at + 10], at)
                raise self._error("a name, a value or an operator", unknown)
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", end)]

    def _error(self, expected: str, token: _Token | None = None) -> InvalidRequestError:
        token = token or self._token
        found = repr(token.text) if token.text else "the end"
        return InvalidRequestError(
            f"filter: expected {expected} at character {token.at + 1}, got {found}", field="filter"
        )


def _compared(field: Field, operator: str, value: FilterValue) -> Filter:
    if operator in ("=", "=="):
        return field == value
    if operator in ("!=", "<>"):
        return field != value
    if operator == ">":
        return field > value
    if operator == ">=":
        return field >= value
    return field < value if operator == "<" else field <= value
