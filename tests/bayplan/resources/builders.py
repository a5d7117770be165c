"""Documents as users write them; each test names only what matters to it."""

from __future__ import annotations

import copy
from typing import Any

_DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]},
        },
    },
}

_SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"ports": [{"port": 80}]},
}


def a_deployment(**container: Any) -> dict[str, Any]:
    """A right Deployment, whose one container has `container`'s fields too."""
    document = copy.deepcopy(_DEPLOYMENT)
    document["spec"]["template"]["spec"]["containers"][0].update(container)
    return document


def a_service(**spec: Any) -> dict[str, Any]:
    """A right Service, with `spec`'s fields."""
    document = copy.deepcopy(_SERVICE)
    document["spec"].update(spec)
    return document


def with_field(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`document` with the field at `path` (keys and indexes between dots) set."""
    changed = copy.deepcopy(document)
    *steps, last = path.split(".")
    here: Any = changed
    for step in steps:
        here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
    here[int(last) if isinstance(here, list) else last] = value
    return changed
