"""Process-wide settings, read from the environment in this one place, when asked.

Every variable begins with `ORRERY_`, but for `REDIS_URL`, which other programs know too; an unknown
one stops the start and is named, so that a misspelt setting cannot be ignored. What one service
alone needs is in its own `config.py`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from services.runtime.auth import Authenticator
from services.runtime.tracing import PASSING, Tracer

__all__ = ["PREFIX", "REDIS_URL", "Settings", "SettingsError", "config_from_args"]

PREFIX = "ORRERY_"

ConfigT = TypeVar("ConfigT", bound=BaseModel)
REDIS_URL = "REDIS_URL"
PACKAGE = "package:"
# Of the client and of clients/examples: whoever exports them may also start the platform.
CLIENT_VARIABLES = frozenset(
    {
        "ORRERY_TARGET",
        "ORRERY_API_KEY",
        "ORRERY_URL",
        "ORRERY_MODEL",
        "ORRERY_EMBEDDING_MODEL",
        "ORRERY_APPLICATION",
    }
)


class SettingsError(Exception):
    """A variable is unknown or its value is wrong; the message names it."""


class Settings(BaseModel):
    """The settings every process of the platform shares. Field `data_dir` is `ORRERY_DATA_DIR`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_keys: tuple[SecretStr, ...] = ()  # comma-separated in the environment
    api_keys_file: Path | None = None  # one key per line; '#' begins a comment
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"
    data_dir: Path = Path(".orrery")
    root: Path | None = None  # where relative model paths begin; None: the repository's root
    http_port: int = Field(default=8000, ge=1, le=65535)
    grpc_port: int = Field(default=9000, ge=1, le=65535)
    metrics_port: int = Field(default=8090, ge=1, le=65535)
    redis_url: SecretStr | None = None  # REDIS_URL: may hold a password. None: no store
    traces_endpoint: str | None = None  # OTLP over HTTP, as http://host:4318/v1/traces. None: none
    traces_sample_ratio: float = Field(default=1.0, ge=0, le=1)
    # When the embedded Redis syncs its file: "always" = before it acknowledges a write.
    redis_fsync: Literal["always", "everysec", "no"] = "always"

    @field_validator("traces_endpoint")
    @classmethod
    def _endpoint_is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("expected http://HOST:PORT/v1/traces, or https")
        return value

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Reads `environ` (default: the process's), where an empty value is as good as none.

        Raises `SettingsError` naming the variable.
        """
        source = os.environ if environ is None else environ
        given: dict[str, object] = {}
        for name, value in source.items():
            if name == REDIS_URL and value:
                given["redis_url"] = value
            if not name.startswith(PREFIX) or name in CLIENT_VARIABLES:
                continue
            if name == PREFIX + REDIS_URL:
                raise SettingsError(f"{name}: unknown setting; expected {REDIS_URL}")
            key = name.removeprefix(PREFIX).lower()
            if key not in cls.model_fields:
                known = ", ".join(_variable(field) for field in cls.model_fields)
                raise SettingsError(f"{name}: unknown setting; expected one of {known}")
            if value:
                given[key] = _split(value) if key == "api_keys" else value
        try:
            return cls(**given)  # type: ignore[arg-type]  # pydantic parses and validates
        except ValidationError as error:
            first = error.errors(include_input=False)[0]  # the value may be a key
            name = _variable(str(first["loc"][0]))
            raise SettingsError(f"{name}: {first['msg']}") from None

    def authenticator(self) -> Authenticator:
        """Checks calls against the keys of both sources. Raises `SettingsError` for the file."""
        return Authenticator(self.all_api_keys())

    def tracer(self, service: str) -> Tracer:
        """Of the calls of a service; one that only passes traces on where no endpoint is set."""
        if self.traces_endpoint is None:
            return PASSING
        from services.runtime.otlp import OtlpTracer

        return OtlpTracer(self.traces_endpoint, self.traces_sample_ratio, service)

    def all_api_keys(self) -> list[str]:
        """The keys of both sources. Raises `SettingsError` for the file."""
        keys = [key.get_secret_value() for key in self.api_keys]
        if self.api_keys_file is not None:
            keys += _keys_of(self.api_keys_file)
        return keys

    def model_folder(self, path: str) -> str:
        """A model's path: as it is when absolute, else below the root when it exists there.

        `package:NAME` is the folder `model` of an installed Python package. Anything else is left
        to the loader, which takes it as a hub name. Raises `SettingsError` for a missing package.
        """
        if path.startswith(PACKAGE):
            return _package_model(path.removeprefix(PACKAGE))
        root = self.root or Path(__file__).resolve().parents[2]
        below = root / path
        return str(below) if below.exists() else path


def config_from_args(config_type: type[ConfigT], args: Mapping[str, Any], service: str) -> ConfigT:
    """A service's own settings from the `args` of its Serve application.

    Raises `ValueError` naming every key that is unknown or whose value is wrong.
    """
    try:
        return config_type(**args)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False)
        )
        raise ValueError(f"args of the {service} application: {problems}") from None


def _package_model(name: str) -> str:
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = None if spec is None else spec.submodule_search_locations
    if not folders:
        raise SettingsError(f"package:{name}: no such package is installed")
    return str(Path(folders[0]) / "model")


def _variable(field: str) -> str:
    name = field.upper()
    return name if name == REDIS_URL else PREFIX + name


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _keys_of(path: Path) -> list[str]:
    name = f"{PREFIX}API_KEYS_FILE"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise SettingsError(f"{name}: {path} holds no key")
    return keys
