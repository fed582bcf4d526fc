"""Ends in order what a running Serve serves: callers before those whom they call.

    python -m deploy.shutdown ADDRESS_OF_RAY

Serve's own shutdown ends the proxy first, and with it every call. Here the proxy stays until the
last application has ended, and refuses whoever comes from outside (deploy/front_door.py). An
application is told to end once nothing runs in those that call it, which were told before: what was
let in finishes, within its service's limit. After `DRAIN_LIMIT_S` all are told.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

__all__ = ["LIMIT_S", "STAGES", "stages_of"]

# By the names of their deployments.
STAGES: Sequence[frozenset[str]] = (
    frozenset({"Gateway"}),
    frozenset({"Rag"}),
    frozenset({"Generation", "Image", "Retrieval"}),
    frozenset({"Embedding", "MoeRouter"}),
    frozenset({"ExpertShard"}),
)
DRAIN_LIMIT_S = 30.0
END_LIMIT_S = 40.0  # from the last one told until all have ended
CLOSE_LIMIT_S = 10.0
LIMIT_S = CLOSE_LIMIT_S + DRAIN_LIMIT_S + END_LIMIT_S

_POLL_S = 0.1


def stages_of(deployments: Mapping[str, str]) -> Iterator[list[str]]:
    """Applications, by the names of their deployments, in the order in which they are ended.

    Those that stand in no stage come first: they may call any other.
    """
    known = frozenset().union(*STAGES)
    unknown = frozenset(deployments.values()) - known
    for stage in (unknown, *STAGES):
        names = [name for name, deployment in deployments.items() if deployment in stage]
        if names:
            yield names


def main() -> int:
    import ray
    from ray import serve
    from ray.serve.context import _get_global_client

    (address,) = sys.argv[1:]
    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    client = _get_global_client()
    _close_proxies(client)
    applications = client.get_serve_details()["applications"]
    deployments = {name: next(iter(app["deployments"]), "") for name, app in applications.items()}
    until_s = time.monotonic() + DRAIN_LIMIT_S
    for names in stages_of(deployments):
        replicas = [actor for name in names for actor in _replicas(applications[name])]
        client.delete_apps(names, blocking=False)
        while _num_calls(replicas) and time.monotonic() < until_s:
            time.sleep(_POLL_S)
    until_s = time.monotonic() + END_LIMIT_S
    while serve.status().applications and time.monotonic() < until_s:
        time.sleep(_POLL_S)
    serve.shutdown()
    return 0


def _close_proxies(client: Any) -> None:
    """They fail their health checks, and reload: with the rules that close the front door."""
    import ray

    proxies = client.get_serve_details()["proxies"].values()
    actors = [ray.get_actor(proxy["actor_name"], namespace="serve") for proxy in proxies]
    closing = [actor.update_draining.remote(draining=True) for actor in actors]
    ray.wait(closing, num_returns=len(closing), timeout=CLOSE_LIMIT_S)


def _replicas(application: Mapping[str, Any]) -> Iterator[Any]:
    import ray

    for deployment in application["deployments"].values():
        for replica in deployment["replicas"]:
            with suppress(ValueError):  # it has ended since
                yield ray.get_actor(replica["actor_name"], namespace="serve")


def _num_calls(replicas: Sequence[Any]) -> int:
    """Under way in all of them; in one that has ended there are none."""
    import ray

    num = 0
    for asked in [replica.get_num_ongoing_requests.remote() for replica in replicas]:
        with suppress(ray.exceptions.RayError):
            num += ray.get(asked)
    return num


if __name__ == "__main__":
    sys.exit(main())
