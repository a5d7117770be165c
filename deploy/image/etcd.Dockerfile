# Debian's etcd 3.4.23 and etcdctl, for sites that cannot pull the official image.
ARG BASE=bayplan-python:3.11
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends etcd-server etcd-client \
    && rm -rf /var/lib/apt/lists/*
ENV ETCDCTL_API=3
CMD ["etcd"]
