# Debian's docker-registry.
ARG BASE=bayplan-python:3.11
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends docker-registry \
    && rm -rf /var/lib/apt/lists/*
COPY registry.yaml /etc/docker/registry/config.yml
VOLUME /var/lib/docker-registry
CMD ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
