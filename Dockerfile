# The pipeline with its locked environment. State (tracking store, checkpoints) and DVC's cache belong on volumes:
#   docker build -t smoothmix-pipeline .
#   docker run --rm -v smoothmix-work:/work smoothmix-pipeline
# A service of a registered model, from a tracking server that the container can reach (see docs/serving.md):
#   docker build --target serve -t smoothmix-serve .
#   docker run --rm -p 8000:8000 -e SERVING_TOKEN -e MLFLOW_TRACKING_URI smoothmix-serve --model models:/NAME@champion
FROM python:3.11-slim-bookworm AS environment
WORKDIR /app
COPY requirements/uv.lock requirements/pipeline.lock ./requirements/
RUN python -m venv /app/.venv \
    && /app/.venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements/uv.lock \
    && VIRTUAL_ENV=/app/.venv /app/.venv/bin/uv pip sync --compile-bytecode --no-cache --require-hashes requirements/pipeline.lock \
    && ln -s /app/source/pipelines/smoothmix.sh /app/.venv/bin/smoothmix

FROM python:3.11-slim-bookworm AS runtime
# git: DVC and the provenance need it; it commits recipes on the volume, and fetches from the image what root owns. g++: torch compiles kernels with it. tini: passes signals on, reaps children.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git g++ tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home pipeline \
    && install --directory --owner 10001 /work \
    && git config --system safe.directory /app/source \
    && git config --system user.name pipeline \
    && git config --system user.email pipeline@localhost
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

FROM runtime AS serve
WORKDIR /app/source
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["tini", "--", "python", "-m", "pipelines.serve", "--host", "0.0.0.0"]
CMD ["--model", "models:/digits-sigma-0.5@champion"]

FROM runtime AS pipeline
WORKDIR /work
VOLUME /work
# To all at once, as Ctrl-C: a stage keeps its progress, and DVC, which would die at SIGTERM, waits for it.
STOPSIGNAL SIGINT
ENTRYPOINT ["tini", "-g", "--", "/app/source/pipelines/operation/docker-entrypoint.sh"]
CMD ["dvc", "repro"]
