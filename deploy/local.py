"""Starts and stops the platform on one machine.

    python -m deploy.local up      # returns when every application is ready
    python -m deploy.local down    # leaves no process behind

`python -m deploy.foreground` is `up` that stays, for containers.

`up` starts a small Ray node of its own, applies `deploy/serve/orrery.yaml` to it and waits. The
node, the Serve controller, the proxy and the replicas then run on without this process.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deploy import embedded_redis, node
from deploy.front_door import close_front_door
from deploy.node import HOST, StartError
from deploy.ports import ALL_INTERFACES, free_port, is_free, own_address
from deploy.processes import end_processes, find_processes
from deploy.ray_environment import REPOSITORY, ray_environment
from deploy.ray_token import make_ray_token
from deploy.resources import Resources, ResourcesError
from deploy.state import PlatformState
from services.runtime.config import Settings, SettingsError


@dataclass(frozen=True)
class Options:
    """Where the platform listens and keeps its data. Port 0 means any free one.

    `redis_url` None: the launcher starts a Redis of the platform's own.
    `resources`: a file of replicas and resources that goes over the configuration.
    `ray_port`: where other machines join this one; only beyond loopback.
    """

    config: Path
    data_dir: Path
    http_port: int
    grpc_port: int
    metrics_port: int
    redis_url: SecretStr | None = None
    redis_fsync: str = "always"
    resources: Path | None = None
    host: str = HOST
    ray_port: int = 0


def up(options: Options, console: Console) -> PlatformState:
    """Starts the platform and waits until it is ready.

    Raises `StartError` when a port is taken, the configuration is wrong or an application fails;
    nothing is left running then.
    """
    running = PlatformState.load(options.data_dir)
    if running is not None and find_processes(running.platform_id):
        console.print("The platform is already running.")
        return _with_redis(options, running)
    if running is not None:
        embedded_redis.stop(running.platform_id)  # of a platform that was killed

    options = _with_ports(options)
    config = _load_config(options)
    platform_id = uuid.uuid4().hex
    try:
        return _start(options, config, platform_id, console)
    except BaseException as error:
        node.disconnect()
        end_processes(platform_id)
        embedded_redis.stop(platform_id)
        shutil.rmtree(run_dir_of(platform_id), ignore_errors=True)
        if isinstance(error, StartError) or not isinstance(error, Exception):
            raise
        raise StartError(f"{type(error).__name__}: {error}") from error


def down(options: Options, console: Console) -> None:
    """Stops the platform started from this data folder; no process of it is left.

    Calls that run may finish within their service's limit; new ones are refused.
    """
    state = PlatformState.load(options.data_dir)
    if state is None:
        console.print("No platform is running here.")
        return
    run_dir = run_dir_of(state.platform_id)
    with console.status("Stopping the platform"):
        if find_processes(state.platform_id):
            close_front_door(run_dir)
            node.drain(state.ray_address, run_dir)
        count = end_processes(state.platform_id)
        count += embedded_redis.stop(state.platform_id)  # last: until now somebody may write
    left = [*find_processes(state.platform_id), *embedded_redis.find(state.platform_id)]
    if left:
        raise StartError(f"processes that would not end: {[process.pid for process in left]}")
    shutil.rmtree(run_dir, ignore_errors=True)
    PlatformState.remove(options.data_dir)
    console.print(f"Stopped; {count} processes ended, none left.")


def _start(
    options: Options, config: dict[str, Any], platform_id: str, console: Console
) -> PlatformState:
    run_dir = run_dir_of(platform_id)
    run_dir.mkdir(mode=0o700, parents=True)
    make_ray_token(run_dir)
    applications = tuple(app["name"] for app in config["applications"])
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:24}"),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        tasks = {
            name: progress.add_task(name, total=1, state="waiting")
            for name in ("redis", "ray", *applications)
        }
        progress.update(tasks["redis"], state="starting")
        redis_url, redis_address = _redis(options, platform_id)
        progress.update(tasks["redis"], state="running", completed=1)
        environment = ray_environment(
            platform_id, run_dir, free_port(), free_port(), options.data_dir, redis_url
        )
        progress.update(tasks["ray"], state="starting")
        listen = node.Listen(
            address=HOST if options.host == HOST else own_address(),
            port=options.ray_port,
            metrics_port=options.metrics_port,
            client_port=free_port(),
        )
        address = node.start_ray(environment, run_dir, listen)
        node.connect(address, environment)
        progress.update(tasks["ray"], state="running", completed=1)

        def show(name: str, state: str) -> None:
            done = int(state == "running")
            progress.update(tasks[name], state=state.replace("_", " "), completed=done)

        node.deploy(config)
        node.wait_for(applications, show)
    _wait_until_ready(options.http_port)
    state = PlatformState(
        platform_id=platform_id,
        http=f"{HOST}:{options.http_port}",
        grpc=f"{HOST}:{options.grpc_port}",
        metrics=f"{HOST}:{options.metrics_port}",
        ray_address=address,
        redis=redis_address,
        applications=applications,
        session_pids_root=_pids(platform_id),
    )
    state.save(options.data_dir)
    return state


def _redis(options: Options, platform_id: str) -> tuple[str, str | None]:
    """The URL of the Redis to use, and the address of the embedded one if that is it."""
    if options.redis_url is not None:
        url = options.redis_url.get_secret_value()
        embedded_redis.check_external(url)
        return url, None
    embedded = embedded_redis.start(platform_id, options.data_dir, options.redis_fsync)
    return embedded.url, embedded.address


def _with_redis(options: Options, running: PlatformState) -> PlatformState:
    """Starts the embedded Redis of a running platform again, should it have been killed whole."""
    platform_id = running.platform_id
    if running.redis is None or embedded_redis.find(platform_id):
        return running
    embedded = embedded_redis.start(platform_id, options.data_dir, options.redis_fsync)
    if embedded.address != running.redis:
        embedded_redis.stop(platform_id)
        raise StartError(
            f"the embedded Redis was killed, and another process has taken {running.redis}, where "
            "the services look for it: make down up"
        )
    revived = running.model_copy(update={"session_pids_root": _pids(platform_id)})
    revived.save(options.data_dir)
    return revived


def _pids(platform_id: str) -> tuple[int, ...]:
    """Of all processes that the platform has now."""
    processes = [*embedded_redis.find(platform_id), *find_processes(platform_id)]
    return tuple(process.pid for process in processes)


def _wait_until_ready(http_port: int) -> None:
    """Waits until the platform says itself, through its front door, that it is ready."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{http_port}/ready", timeout=5) as reply:
                if reply.status == 200:
                    return
                reason = f"HTTP {reply.status}"
        except (urllib.error.URLError, OSError) as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise StartError(f"the applications run, but /ready does not agree: {reason}")
        time.sleep(0.2)


def _load_config(options: Options) -> dict[str, Any]:
    try:
        written = yaml.safe_load(options.config.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise StartError(f"cannot read {options.config}: {error}") from error
    if not isinstance(written, dict) or not isinstance(written.get("applications"), list):
        raise StartError(f"{options.config}: expected a Serve configuration with applications")
    config = _with_resources(written, options.resources)
    config["http_options"] = {
        **config.get("http_options", {}),
        "host": options.host,
        "port": options.http_port,
    }
    config["grpc_options"] = {**config.get("grpc_options", {}), "port": options.grpc_port}
    for app in config["applications"]:
        _set_grpc_target(app.get("args"), f"{HOST}:{options.grpc_port}")
    return config


def _with_resources(config: dict[str, Any], resources: Path | None) -> dict[str, Any]:
    if resources is None:
        return config
    try:
        return Resources.read(resources).applied_to(config)
    except ResourcesError as error:
        raise StartError(str(error)) from error


def _set_grpc_target(args: Any, target: str) -> None:
    """In the settings of an application and in the parts of them that have one."""
    if not isinstance(args, dict):
        return
    if "grpc_target" in args:
        args["grpc_target"] = target
    for part in args.values():
        _set_grpc_target(part, target)


def _with_ports(options: Options) -> Options:
    ports = {}
    for name in ("http", "grpc", "metrics"):
        port = getattr(options, f"{name}_port") or free_port()
        if not is_free(port):
            raise StartError(
                f"{name} port {port} is taken by another process: stop it, or choose another "
                f"with --{name}-port or ORRERY_{name.upper()}_PORT"
            )
        ports[name] = port
    return replace(
        options,
        http_port=ports["http"],
        grpc_port=ports["grpc"],
        metrics_port=ports["metrics"],
    )


def run_dir_of(platform_id: str) -> Path:
    """A short path: Ray and the proxy keep sockets under it."""
    return Path(tempfile.gettempdir()) / f"orrery-{platform_id[:8]}"


def data_dir_of(settings: Settings) -> Path:
    """The data folder: as set, below the repository when relative."""
    return REPOSITORY / settings.data_dir


def add_options(parser: argparse.ArgumentParser, settings: Settings) -> None:
    """The options of a platform on this machine, which `options_of` takes."""
    parser.add_argument("--config", type=Path, default=REPOSITORY / "deploy/serve/orrery.yaml")
    parser.add_argument("--resources", type=Path, help="replicas, devices: deploy/resources.py")
    parser.add_argument("--data-dir", type=Path, default=data_dir_of(settings))
    for name in ("http", "grpc", "metrics"):
        default = getattr(settings, f"{name}_port")
        parser.add_argument(
            f"--{name}-port", type=int, default=default, help=f"default {default}; 0 = any free one"
        )
    parser.add_argument(
        "--host",
        choices=[HOST, ALL_INTERFACES],
        default=HOST,
        help=f"where HTTP and gRPC listen; default {HOST}; {ALL_INTERFACES} asks for API keys",
    )
    parser.add_argument("--ray-port", type=int, default=0, help="where other machines join")


def options_of(parsed: argparse.Namespace, settings: Settings) -> Options:
    """Raises `StartError` where the platform would listen to everybody."""
    if parsed.host != HOST and not settings.all_api_keys():
        raise StartError(
            f"--host {parsed.host}: whoever reaches this machine could use the platform: set "
            "ORRERY_API_KEYS or ORRERY_API_KEYS_FILE"
        )
    values = {key: value for key, value in vars(parsed).items() if key != "command"}
    return Options(**values, redis_url=settings.redis_url, redis_fsync=settings.redis_fsync)


def _parse_options(arguments: list[str], settings: Settings) -> tuple[str, Options]:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("command", choices=["up", "down"])
    add_options(parser, settings)
    parsed = parser.parse_args(arguments)
    return parsed.command, options_of(parsed, settings)


def show_addresses(state: PlatformState, took_s: float, console: Console) -> None:
    """Where the platform listens that has just become ready."""
    console.print(f"Ready in {took_s:.0f} s.")
    console.print(f"  HTTP     http://{state.http}/docs")
    console.print(f"  gRPC     {state.grpc}")
    console.print(f"  metrics  http://{state.metrics}/metrics")


def main() -> int:
    console = Console()
    started = time.monotonic()
    try:
        command, options = _parse_options(sys.argv[1:], Settings.from_env())
        if command == "down":
            down(options, console)
            return 0
        state = up(options, console)
    except (StartError, SettingsError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
    show_addresses(state, time.monotonic() - started, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
