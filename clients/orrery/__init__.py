"""Orrery's client: text generation over gRPC.

    from orrery import Client

    with Client() as client:
        print(client.generate("Once upon a time", model="llama", max_tokens=64).text)

`AsyncClient` is the same for asyncio. What can be raised is in `orrery.errors`, what is returned in
`orrery.results`; `orrery.v1` are the generated messages and stubs of the contract.
"""

from __future__ import annotations

from orrery.async_client import AsyncClient, AsyncTextStream

__all__ = [
    "AsyncClient",
    "AsyncTextStream",
]
