"""Pods of several containers: which one is meant where none is named.

The pod's agent decides it, as kubectl would; here it is told, on stderr, so that a script's output stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bayplan.cli.run import note
from bayplan.cli.text import clean

if TYPE_CHECKING:
    from bayplan.client import Pod


def tell_default(pod: Pod, wanted: str) -> None:
    """Say which container is taken, and of which others; nothing where there is no choice."""
    names = pod.container_names
    if not wanted and len(names) > 1:
        note(f'Defaulted container "{clean(names[0])}" out of: {clean(", ".join(names))}')


def tell_default_of(pods: Sequence[Pod], name: str) -> None:
    """The same for the pod of this name, or the only one whose name begins so."""
    found = [pod for pod in pods if pod.name == name] or [pod for pod in pods if pod.name.startswith(name)]
    if len(found) == 1:
        tell_default(found[0], "")


def tell_default_of_any(pods: Sequence[Pod], wanted: str) -> None:
    """The same for the pods of a workload: once, as they are alike but during a rollout."""
    for pod in pods[-1:]:
        tell_default(pod, wanted)
