"""Ray's token: the platform's own, or the one that several nodes share."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.ray_token import TOKEN_PATH, make_ray_token, ray_token_environment


def test_a_platform_makes_its_own_that_only_its_owner_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_PATH, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    one, other = tmp_path / "one", tmp_path / "other"
    tokens = set()
    for run_dir in (one, other):
        run_dir.mkdir()
        make_ray_token(run_dir)
        environment = ray_token_environment(run_dir)
        file = Path(environment[TOKEN_PATH])
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"] == ""
        assert file.parent == run_dir
        assert file.stat().st_mode & 0o777 == 0o600
        tokens.add(file.read_text())
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


def test_a_given_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_PATH, "/run/secrets/ray-token")
    make_ray_token(tmp_path)
    assert not list(tmp_path.iterdir())
    assert ray_token_environment(tmp_path)[TOKEN_PATH] == "/run/secrets/ray-token"
    monkeypatch.setenv(TOKEN_PATH, ".ray-token")
    assert ray_token_environment(tmp_path)[TOKEN_PATH] == str(Path.cwd() / ".ray-token")
