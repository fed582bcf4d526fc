"""Which ports of this machine a platform takes. Knows nothing of what listens there."""

from __future__ import annotations

import random
import socket

__all__ = [
    "ALL_INTERFACES",
    "HOST",
    "NoFreePorts",
    "free_port",
    "is_free",
    "own_address",
    "replica_ports",
]

HOST = "127.0.0.1"
ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - the launcher asks for API keys where it is chosen
# Below the ports that the system gives to connections, above those of Ray's workers.
FIRST_REPLICA_PORT, LAST_REPLICA_PORT = 20_000, 30_000
REPLICA_PORTS = 100  # one for each replica, and for those that ended a moment ago
# Above those that the system gives to connections: nobody takes one by chance before it is used.
_CHOSEN_PORTS = range(61_000, 65_536)


class NoFreePorts(Exception):
    """All ports that might be taken are in use."""


def free_port() -> int:
    """Any port on which nobody listens. Raises `NoFreePorts`."""
    for port in random.SystemRandom().sample(_CHOSEN_PORTS, len(_CHOSEN_PORTS)):
        if is_free(port):
            return port
    raise NoFreePorts(f"no port from {_CHOSEN_PORTS[0]} up is free")


def own_address() -> str:
    """The address of this machine, or container, by which others reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the system only says from where it would be. (RFC 5737: nobody's.)
            probe.connect(("192.0.2.1", 9))
        except OSError:  # no route leads out
            return socket.gethostbyname(socket.gethostname())
        return str(probe.getsockname()[0])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def replica_ports(platform_id: str) -> range:
    """A block of ports for the gRPC servers of one platform's replicas, free all of them.

    Ray Serve gives every platform the same ports and means to notice when one is taken, but does
    not (it hands gRPC `so_reuseport` as a text, which gRPC ignores): two platforms on one machine
    would take each other's calls. Raises `NoFreePorts`.
    """
    starts = list(range(FIRST_REPLICA_PORT, LAST_REPLICA_PORT, REPLICA_PORTS))
    random.Random(platform_id).shuffle(starts)  # noqa: S311 - two that start at once differ
    for start in starts:
        block = range(start, start + REPLICA_PORTS)
        if all(map(is_free, block)):
            return block
    raise NoFreePorts(f"no {REPLICA_PORTS} ports in a row are free for the replicas")
