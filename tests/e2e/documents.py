"""Documents that the e2e tests apply."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.e2e.cluster import APP_IMAGE

GRACE_S = 2


def service(
    name: str,
    *,
    ports: dict[str, tuple[int, int, str]],
    selector: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A Service in Kubernetes' shape; `ports`: name → (port, target port, protocol)."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {
            "selector": {"app": name} if selector is None else selector,
            "ports": [
                {"name": port_name, "port": port, "targetPort": target, "protocol": protocol}
                for port_name, (port, target, protocol) in ports.items()
            ],
            **spec,
        },
    }


def deployment(
    name: str = "web",
    *,
    replicas: int = 3,
    image: str = APP_IMAGE,
    requests: dict[str, str] | None = None,
    policy: str = "",
    **container: Any,
) -> dict[str, Any]:
    """A Deployment of the tests' app in Kubernetes' shape."""
    described: dict[str, Any] = {"name": "app", "image": image, **container}
    if requests:
        described["resources"] = {"requests": requests}
    if policy:
        described["imagePullPolicy"] = policy
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [described], "terminationGracePeriodSeconds": GRACE_S},
            },
        },
    }


def ingress(name: str, host: str, paths: dict[str, str], *, secret: str) -> dict[str, Any]:
    """An Ingress of one host with TLS; `paths`: prefix → service, whose port is 80."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name},
        "spec": {
            "tls": [{"hosts": [host], "secretName": secret}],
            "rules": [
                {
                    "host": host,
                    "http": {
                        "paths": [
                            {
                                "path": path,
                                "pathType": "Prefix",
                                "backend": {"service": {"name": to, "port": {"number": 80}}},
                            }
                            for path, to in paths.items()
                        ]
                    },
                }
            ],
        },
    }


def tls_secret(name: str, host: str, *, is_broken: bool = False) -> dict[str, Any]:
    """A certificate for `host` that nobody has signed but itself. Broken: with the key of another."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    kept = ec.generate_private_key(ec.SECP256R1()) if is_broken else key
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "stringData": {
            "tls.crt": certificate.public_bytes(Encoding.PEM).decode(),
            "tls.key": kept.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        },
    }
