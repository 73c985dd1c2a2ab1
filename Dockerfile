# syntax=docker/dockerfile:1
# One image for every part of Tocsin: `docker run … tocsin worker --queues dispatch`, `… web`, `… up`.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/tocsin
ENV PATH=/opt/tocsin/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
# What was locked is what is installed, hash for hash; the layer is kept until the lock changes.
COPY requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY worker worker
COPY templates templates
COPY lists lists
RUN pip install --no-build-isolation --no-deps .

FROM ${PYTHON}
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /srv/tocsin --shell /usr/sbin/nologin tocsin \
    && install --directory --mode 0700 --owner tocsin --group tocsin /srv/tocsin
COPY --from=build /opt/tocsin /opt/tocsin
# Inside a container every address is the container's own; what leaves it is the engine's to say.
ENV PATH=/opt/tocsin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TOCSIN_WEB__HOST=0.0.0.0
# The workspace: tocsin.toml, templates, lists and var are mounted here.
WORKDIR /srv/tocsin
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "worker.health", "web"]
ENTRYPOINT ["tocsin"]
CMD ["up"]
