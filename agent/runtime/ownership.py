"""Which containers are ours, and when two of one name are the same.

Ours are those that carry our cluster and our node as labels; both are added to every container
that a runtime creates, so that it cannot make one that it would not find again.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.runtime.port import LABEL_CLUSTER, LABEL_EPOCH, LABEL_NODE


def owner_labels(*, cluster: str, node: str) -> dict[str, str]:
    """What every container of one cluster on one node carries."""
    return {LABEL_CLUSTER: cluster, LABEL_NODE: node}


def is_ours(labels: Mapping[str, str], *, cluster: str, node: str) -> bool:
    """Whether we may touch a container with these labels."""
    return labels.get(LABEL_CLUSTER) == cluster and labels.get(LABEL_NODE) == node


def is_what_was_asked(wanted: Mapping[str, str], actual: Mapping[str, str]) -> bool:
    """Whether a container with `actual` labels is what a create with `wanted` labels meant.

    Images add labels of their own. And the epoch says who ordered a container, not what it is: when the
    leader changes between two attempts to create one, the first attempt's container is still the right one.
    """
    return all(actual.get(key) == value for key, value in wanted.items() if key != LABEL_EPOCH)
