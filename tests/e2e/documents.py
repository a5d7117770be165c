"""Documents that the e2e tests apply."""

from __future__ import annotations

from typing import Any

from tests.e2e.cluster import APP_IMAGE

GRACE_S = 2


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
