# Python 3.11 on Debian 12, with the host's CA certificates: the base of everything of ours, and of the example.
# BASE is python:3.11-slim-bookworm where it can be pulled, else the local debootstrap base, which gets Python here.
ARG BASE
FROM ${BASE}
ENV PATH=/opt/python/bin:$PATH \
    DEBIAN_FRONTEND=noninteractive \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1
# A virtual environment gives `python` and `pip` by the names that Dockerfiles expect.
RUN if ! command -v pip; then \
        apt-get update && apt-get install -y --no-install-recommends python3-venv ca-certificates \
        && rm -rf /var/lib/apt/lists/* && python3 -m venv /opt/python; \
    fi
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
