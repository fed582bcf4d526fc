"""`client.collections`: the collections of documents that a platform holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

from orrery.async_connection import AsyncConnection
from orrery.calls.common import CallOptions
from orrery.calls.retrieval import RetrievalCalls
from orrery.connection import Connection
from orrery.requests.collections import CollectionOptions
from orrery.results import Collection, RetrievalLoad, SnapshotInfo

__all__ = ["AsyncCollections", "Collections"]


class Collections:
    """Made by `Client`. Every method may raise `OrreryError`.

    `consistency_token` of a read: None = the newest that the client knows of, so that it sees its
    own writes; an empty text = do not wait.
    """

    def __init__(self, connection: Connection, calls: RetrievalCalls) -> None:
        self._connection = connection
        self._calls = calls

    def create(
        self,
        name: str,
        *,
        title: str = "",
        metadata: Mapping[str, str] | None = None,
        exist_ok: bool = False,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **config: Unpack[CollectionOptions],
    ) -> Collection:
        """Makes a collection.

        Args:
            name: 1 to 64 letters, digits, `_`, `-` or `.`, beginning with a letter or digit.
            title: For people.
            metadata: Of the collection itself.
            exist_ok: One of that name and the same config is returned as it is.
            timeout_s: Time of the call in seconds.
            request_id: 1 to 128 visible ASCII characters; made up if None.
            **config: See `CollectionOptions`. It stays as it is for good.

        Raises:
            AlreadyExistsError: There is one of that name.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(
            self._calls.create(name, title, metadata, config, exist_ok=exist_ok, options=options)
        )

    def get(
        self,
        name: str,
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Collection:
        """A collection: config, counts, fields of its documents.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.get(name, consistency_token, options))

    def list(
        self,
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> tuple[Collection, ...]:
        """All collections, by name. The time is that of each page."""
        options = CallOptions(None, timeout_s, request_id)
        found: tuple[Collection, ...] = ()
        page_token = ""
        while True:
            page, page_token = self._connection.run(
                self._calls.list_page(page_token, consistency_token, options)
            )
            found += page
            if not page_token:
                return found

    def update(
        self,
        name: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Collection:
        """Changes the title, or all of the metadata; None leaves it as it is."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.update(name, title, metadata, options))

    def delete(
        self, name: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> None:
        """Removes a collection with all its documents."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.delete(name, options))

    def rebuild(
        self, name: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Collection:
        """Merges a collection's segments into one and drops what was deleted."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.rebuild(name, options))

    def snapshot(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> SnapshotInfo:
        """Writes a snapshot of all collections now."""
        return self._connection.run(self._calls.snapshot(CallOptions(None, timeout_s, request_id)))

    def load(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> RetrievalLoad:
        """What the replica that answers is doing, and how far it has read the log."""
        options = CallOptions(None, timeout_s, request_id)
        return self._connection.run(self._calls.load(options))


class AsyncCollections:
    """Made by `AsyncClient`. Every method may raise `OrreryError`.

    `consistency_token` of a read: None = the newest that the client knows of, so that it sees its
    own writes; an empty text = do not wait.
    """

    def __init__(self, connection: AsyncConnection, calls: RetrievalCalls) -> None:
        self._connection = connection
        self._calls = calls

    async def create(
        self,
        name: str,
        *,
        title: str = "",
        metadata: Mapping[str, str] | None = None,
        exist_ok: bool = False,
        timeout_s: float | None = None,
        request_id: str | None = None,
        **config: Unpack[CollectionOptions],
    ) -> Collection:
        """Makes a collection; see `Collections.create`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(
            self._calls.create(name, title, metadata, config, exist_ok=exist_ok, options=options)
        )

    async def get(
        self,
        name: str,
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Collection:
        """A collection: config, counts, fields of its documents; see `Collections.get`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.get(name, consistency_token, options))

    async def list(
        self,
        *,
        consistency_token: str | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> tuple[Collection, ...]:
        """All collections, by name. The time is that of each page; see `Collections.list`."""
        options = CallOptions(None, timeout_s, request_id)
        found: tuple[Collection, ...] = ()
        page_token = ""
        while True:
            page, page_token = await self._connection.run(
                self._calls.list_page(page_token, consistency_token, options)
            )
            found += page
            if not page_token:
                return found

    async def update(
        self,
        name: str,
        *,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
    ) -> Collection:
        """Changes the title, or all of the metadata; None leaves it as it is.

        See `Collections.update`.
        """
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.update(name, title, metadata, options))

    async def delete(
        self, name: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> None:
        """Removes a collection with all its documents; see `Collections.delete`."""
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.delete(name, options))

    async def rebuild(
        self, name: str, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> Collection:
        """Merges a collection's segments into one and drops what was deleted.

        See `Collections.rebuild`.
        """
        options = CallOptions(None, timeout_s, request_id)
        return await self._connection.run(self._calls.rebuild(name, options))

    async def snapshot(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> SnapshotInfo:
        """Writes a snapshot of all collections now; see `Collections.snapshot`."""
        return await self._connection.run(
            self._calls.snapshot(CallOptions(None, timeout_s, request_id))
        )

    async def load(
        self, *, timeout_s: float | None = None, request_id: str | None = None
    ) -> RetrievalLoad:
        """What the replica that answers is doing, and how far it has read the log.

        See `Collections.load`.
        """
        return await self._connection.run(
            self._calls.load(CallOptions(None, timeout_s, request_id))
        )
