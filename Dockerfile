# Three images, each with what the one before it holds and more, and none with tools for development (docs/deploy.md):
#   train     computes: prepare, train, certify
#   serve     answers for a registered model
#   pipeline  the whole graph, on a volume that keeps the project, its data and its state
# `make image` builds them all. The environments lie in layers that a change of the source leaves as they are.
FROM python:3.11-slim-bookworm AS train-environment
WORKDIR /app
# git: DVC and the provenance need it; it commits recipes on the volume and fetches from the image, whoever owns them. g++:
# torch compiles kernels with it. tini: passes signals on, reaps children.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home pipeline \
    && install --directory --owner 10001 /work \
    && git config --system safe.directory '*' \
    && git config --system user.name pipeline \
    && git config --system user.email pipeline@localhost \
    && python -m venv /app/.venv \
    && ln -s /app/source/pipelines/smoothmix.sh /app/.venv/bin/smoothmix
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
# An index with other builds of torch, such as those for CPUs; empty: the build of the lock, with CUDA.
ARG TORCH_INDEX=
COPY requirements/install.sh requirements/train.lock ./requirements/
RUN sh requirements/install.sh requirements/train.lock

# On a volume, as pipeline below. What is compiled for this machine stays there, and a stop reaches all processes at
# once, as Ctrl-C: a stage keeps its progress, and DVC, which would die at SIGTERM, waits for it.
FROM train-environment AS train
COPY . /app/source
USER 10001
WORKDIR /work
VOLUME /work
ENV XDG_CACHE_HOME=/work/.cache TORCHINDUCTOR_CACHE_DIR=/work/.cache/inductor TRITON_CACHE_DIR=/work/.cache/triton
STOPSIGNAL SIGINT
ENTRYPOINT ["tini", "-g", "--", "/app/source/pipelines/operation/docker-entrypoint.sh"]
CMD ["smoothmix", "--help"]

FROM train-environment AS serve-environment
ARG TORCH_INDEX=
COPY requirements/serve.lock ./requirements/
RUN sh requirements/install.sh requirements/serve.lock

FROM serve-environment AS serve
COPY . /app/source
USER 10001
WORKDIR /app/source
ENV SERVING_PORT=8000
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['SERVING_PORT'] + '/health')"]
ENTRYPOINT ["tini", "--", "sh", "-c", "exec python -m pipelines.serve --host 0.0.0.0 --port \"$SERVING_PORT\" \"$@\"", "serve"]
CMD ["--model", "models:/digits-sigma-0.5@champion"]

FROM serve-environment AS pipeline-environment
ARG TORCH_INDEX=
COPY requirements/runtime.lock ./requirements/
RUN sh requirements/install.sh requirements/runtime.lock

FROM pipeline-environment AS pipeline
COPY . /app/source
USER 10001
WORKDIR /work
VOLUME /work
ENV XDG_CACHE_HOME=/work/.cache TORCHINDUCTOR_CACHE_DIR=/work/.cache/inductor TRITON_CACHE_DIR=/work/.cache/triton
STOPSIGNAL SIGINT
ENTRYPOINT ["tini", "-g", "--", "/app/source/pipelines/operation/docker-entrypoint.sh"]
CMD ["dvc", "repro"]
