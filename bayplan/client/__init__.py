"""Bayplan's client for Python programs; the command line uses it too.

```
async with Client(["10.0.0.1:7400", "10.0.0.2:7400"]) as cluster:
    await cluster.apply([deployment])
    await cluster.wait_ready("Deployment", "web")
    for pod in await cluster.pods(workload="web"):
        print(pod.name, pod.node, pod.status)
```
"""

from bayplan.client.client import Client
from bayplan.client.errors import (
    AccessDeniedError,
    BayplanError,
    ConflictError,
    ForbiddenStateError,
    InvalidDocumentError,
    ManagerFailedError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
    UnknownOutcomeError,
)
from bayplan.client.exec import ExecSession
from bayplan.client.types import (
    Adopted,
    Applied,
    Container,
    Document,
    DocumentsChange,
    Event,
    Exit,
    Explanation,
    Manager,
    Mark,
    Node,
    Output,
    Pod,
    PodsChange,
    Scaled,
    Version,
)
from bayplan.model.nodes import Amounts, Taint
from bayplan.transport.errors import Problem

__all__ = [
    "AccessDeniedError",
    "Adopted",
    "Amounts",
    "Applied",
    "BayplanError",
    "Client",
    "ConflictError",
    "Container",
    "Document",
    "DocumentsChange",
    "Event",
    "ExecSession",
    "Exit",
    "Explanation",
    "ForbiddenStateError",
    "InvalidDocumentError",
    "Manager",
    "ManagerFailedError",
    "Mark",
    "Node",
    "NotFoundError",
    "NotReadyError",
    "Output",
    "Pod",
    "PodsChange",
    "Problem",
    "Scaled",
    "Taint",
    "UnavailableError",
    "UnknownOutcomeError",
    "Version",
]
