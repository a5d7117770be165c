"""What pods of a namespace may ask of their hosts, and what a pod asks. Pure.

Checked by managers when a document is applied, and by agents again: whoever gets past one meets the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeGuard, get_args

PolicyLevel = Literal["baseline", "privileged"]


def is_level(text: str) -> TypeGuard[PolicyLevel]:
    """Whether there is such a policy."""
    return text in get_args(PolicyLevel)


def asked_of_host(template: Mapping[str, Any]) -> list[str]:
    """Paths in a pod template (as JSON) of what baseline refuses, e.g. "spec.hostNetwork"."""
    spec = template.get("spec") or {}
    return ["spec.hostNetwork"] if spec.get("hostNetwork") else []
