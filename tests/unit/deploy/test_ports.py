"""Two platforms on one machine: none takes a port of the other."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from deploy import ports


def test_a_port_is_free_until_somebody_listens() -> None:
    port = ports.free_port()
    assert ports.is_free(port)
    with socket.create_server(("", port)):
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_free_port_is_none_that_a_connection_may_get() -> None:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert not any(int(low) <= ports.free_port() <= int(high) for _ in range(50))


def test_replicas_of_two_platforms_have_ports_of_their_own() -> None:
    first = ports.replica_ports("platform")
    assert len(first) == ports.REPLICA_PORTS
    assert ports.replica_ports("platform") == first
    with socket.socket(socket.AF_INET6) as replica:
        # As gRPC binds: shared with whoever asks for the same.
        replica.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        replica.bind(("::", first[0]))
        replica.listen()
        second = ports.replica_ports("platform")
    assert not set(first) & set(second)


def test_no_block_is_given_where_none_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port % ports.REPLICA_PORTS != 7)
    with pytest.raises(ports.NoFreePorts):
        ports.replica_ports("platform")
