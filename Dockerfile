# The pipeline with its locked environment. State (tracking store, checkpoints) and DVC's cache belong on volumes:
#   docker build -t smoothmix-pipeline .
#   docker run --rm -v smoothmix-work:/work smoothmix-pipeline
FROM python:3.11-slim-bookworm AS environment
WORKDIR /app
COPY requirements-uv.lock requirements.lock ./
RUN python -m venv /app/.venv \
    && /app/.venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-uv.lock \
    && VIRTUAL_ENV=/app/.venv /app/.venv/bin/uv pip sync --compile-bytecode --no-cache --require-hashes requirements.lock

FROM python:3.11-slim-bookworm
# git: DVC and the provenance need it. g++: torch compiles kernels with it. tini: passes signals on, reaps children.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home pipeline \
    && install --directory --owner 10001 /work
COPY --from=environment /app/.venv /app/.venv
COPY . /app/source
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GX_ANALYTICS_ENABLED=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
USER 10001
WORKDIR /work
VOLUME /work
ENTRYPOINT ["tini", "--", "/app/source/docker-entrypoint.sh"]
CMD ["dvc", "repro"]
