"""Closes the platform's front door: from then on its proxy refuses whoever comes from outside.

Rules for a frontend of the proxy's configuration lie in a file of its name in the platform's run
folder; `deploy/haproxy_loopback.sh` puts them in when the proxy next reloads. Calls from one
service to another, for the sake of what was let in before, pass.
"""

from __future__ import annotations

import base64
from pathlib import Path

from orrery.steps import INNER_HEADER
from services.gateway.errors import error_response
from services.runtime.errors import NotReady, kind_of, to_status

__all__ = ["close_front_door"]

_REFUSAL = NotReady("the platform is shutting down", retry_after_s=1.0)


def close_front_door(run_dir: Path) -> None:
    """Takes effect with the proxy's next reload."""
    (run_dir / "http_frontend.rules").write_text(_over_http())
    (run_dir / "grpc_frontend.rules").write_text(_over_grpc())


def _over_http() -> str:
    answer = error_response(_REFUSAL)
    headers = " ".join(
        f"hdr {name} {value}" for name, value in answer.headers.items() if name.startswith("retry")
    )
    body = bytes(answer.body).decode()
    return (
        f"    http-request return status {answer.status_code} {headers}"
        f" content-type {answer.media_type} string '{body}'\n"
    )


def _over_grpc() -> str:
    status = to_status(_REFUSAL)
    details = base64.b64encode(status.SerializeToString()).decode()
    code = kind_of(_REFUSAL).grpc_status.value[0]
    return (
        "    http-request return status 200 content-type application/grpc"
        f' hdr grpc-status {code} hdr grpc-message "{status.message}"'
        f" hdr grpc-status-details-bin {details} if !{{ req.hdr({INNER_HEADER}) -m found }}\n"
    )
