"""Applies a Serve configuration to a running platform, as a cluster's operator does.

python -m tests.fakes.apply_config ADDRESS_OF_RAY [OPTIONS OF deploy.local]
"""

from __future__ import annotations

import argparse
import sys

import ray

from deploy import local, node
from deploy.ports import ALL_INTERFACES
from services.runtime.config import Settings


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    settings = Settings.from_env()
    local.add_options(parser, settings)
    parsed = parser.parse_args([*sys.argv[1:], f"--host={ALL_INTERFACES}"])
    address = vars(parsed).pop("address")
    ray.init(address=address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    node.deploy(local._load_config(local.options_of(parsed, settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
