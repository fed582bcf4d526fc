"""Which version of the client this is, and of the contract it speaks."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from orrery.v1 import common_pb2

__all__ = ["CONTRACT", "client_version"]

CONTRACT: str = common_pb2.DESCRIPTOR.package


def client_version() -> str:
    """The installed version, or that it runs from its source."""
    try:
        return version("orrery")
    except PackageNotFoundError:
        return "(run from its source, not installed)"
