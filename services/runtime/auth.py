"""API keys: who may call. Knows nothing of transports: it is given the header's value."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from services.runtime.errors import Unauthenticated

__all__ = ["Authenticator"]

_SCHEME = "bearer"


class Authenticator:
    """Checks `authorization: Bearer <key>` against the configured keys, in constant time.

    With no keys configured everybody may call; the platform then listens on loopback only.
    """

    def __init__(self, api_keys: Iterable[str] = ()) -> None:
        # Digests have one length, so that comparing leaks neither a key's length nor a prefix.
        self._digests = tuple(_digest(key) for key in api_keys)

    @property
    def required(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._digests)

    def check(self, authorization: str | None) -> None:
        """Raises `Unauthenticated` unless the header's value carries a configured key."""
        if not self._digests:
            return
        if authorization is None:
            raise Unauthenticated(
                "expected the header 'authorization: Bearer <key>'", field="authorization"
            )
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip())
        # No early exit: the time taken says nothing about which key came close.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != _SCHEME or not any(matches):
            raise Unauthenticated("the API key is not valid", field="authorization")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
