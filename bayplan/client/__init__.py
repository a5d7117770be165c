"""Bayplan's client for Python programs; the command line uses it too.

```
async with Client.from_context() as cluster:
    await cluster.apply([deployment])
    await cluster.wait_ready("Deployment", "web")
    for pod in await cluster.pods(workload="web"):
        print(pod.name, pod.node, pod.status)
```
"""

from bayplan.client.access_types import (
    Audit,
    AuditEntry,
    Ca,
    CanI,
    CaRoot,
    IdentityInfo,
    JoinTokenInfo,
    NewToken,
    RotatedKeys,
    WhoAmI,
)
from bayplan.client.client import Client
from bayplan.client.errors import (
    AccessDeniedError,
    BayplanError,
    ConflictError,
    ContextError,
    ForbiddenStateError,
    InvalidDocumentError,
    ManagerFailedError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
    UnknownOutcomeError,
)
from bayplan.client.exec import ExecSession
from bayplan.client.forward import ForwardedConnection
from bayplan.client.types import (
    Adopted,
    Applied,
    Container,
    Document,
    DocumentsChange,
    Endpoint,
    Event,
    Exit,
    Explanation,
    Manager,
    Mark,
    NetworkCheck,
    NetworkPath,
    Node,
    Output,
    Pod,
    PodsChange,
    Registry,
    RegistryChange,
    Scaled,
    ServiceEndpoints,
    ServicePort,
    ServiceTop,
    Version,
)
from bayplan.model.nodes import Amounts, Taint
from bayplan.transport.errors import Problem

__all__ = [
    "AccessDeniedError",
    "Adopted",
    "Amounts",
    "Applied",
    "Audit",
    "AuditEntry",
    "BayplanError",
    "Ca",
    "CaRoot",
    "CanI",
    "Client",
    "ConflictError",
    "Container",
    "ContextError",
    "Document",
    "DocumentsChange",
    "Endpoint",
    "Event",
    "ExecSession",
    "Exit",
    "Explanation",
    "ForbiddenStateError",
    "ForwardedConnection",
    "IdentityInfo",
    "InvalidDocumentError",
    "JoinTokenInfo",
    "Manager",
    "ManagerFailedError",
    "Mark",
    "NetworkCheck",
    "NetworkPath",
    "NewToken",
    "Node",
    "NotFoundError",
    "NotReadyError",
    "Output",
    "Pod",
    "PodsChange",
    "Problem",
    "Registry",
    "RegistryChange",
    "RotatedKeys",
    "Scaled",
    "ServiceEndpoints",
    "ServicePort",
    "ServiceTop",
    "Taint",
    "UnavailableError",
    "UnknownOutcomeError",
    "Version",
    "WhoAmI",
]
