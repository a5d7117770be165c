"""Documents as users write them; each test names only what matters to it."""

from __future__ import annotations

import copy
from typing import Any

from bayplan.resources.document import parse_document
from bayplan.resources.problems import DocumentError

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

_INGRESS: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "shop"},
    "spec": {
        "rules": [
            {
                "host": "shop.example.org",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "web", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ]
    },
}

_ENDPOINTS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "db"},
    "subsets": [{"addresses": [{"ip": "10.0.0.5"}], "ports": [{"port": 5432}]}],
}


def problems_of(document: object) -> dict[str, str]:
    """Path → message of everything that is refused; empty if the document is right."""
    try:
        parse_document(document)
    except DocumentError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


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


def an_ingress() -> dict[str, Any]:
    """A right Ingress: one host, one path."""
    return copy.deepcopy(_INGRESS)


def endpoints(*subsets: dict[str, Any]) -> dict[str, Any]:
    """Right Endpoints, or some of these subsets."""
    document = copy.deepcopy(_ENDPOINTS)
    if subsets:
        document["subsets"] = list(subsets)
    return document


def with_annotations(document: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    """`document` with these annotations of its own."""
    return with_field(document, "metadata.annotations", annotations)


def with_field(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`document` with the field at `path` (keys and indexes between dots) set."""
    changed = copy.deepcopy(document)
    *steps, last = path.split(".")
    here: Any = changed
    for step in steps:
        here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
    here[int(last) if isinstance(here, list) else last] = value
    return changed
