"""Applies a Serve configuration to a running platform, as a cluster's operator does.

python -m tests.fakes.apply_config PLATFORM_ID ADDRESS_OF_RAY [OPTIONS OF deploy.local]
"""

from __future__ import annotations

import argparse
import os
import sys

from deploy import local, node
from deploy.ports import ALL_INTERFACES
from deploy.ray_token import ray_token_environment
from services.runtime.config import Settings


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("platform_id")
    parser.add_argument("address")
    settings = Settings.from_env()
    local.add_options(parser, settings)
    parsed = parser.parse_args([*sys.argv[1:], f"--host={ALL_INTERFACES}"])
    platform_id, address = vars(parsed).pop("platform_id"), vars(parsed).pop("address")
    os.environ.update(ray_token_environment(local.run_dir_of(platform_id)))
    import ray  # reads its environment

    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    node.deploy(local._load_config(local.options_of(parsed, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
