"""Names of pods: derived, never stored.

A pod is one incarnation of one slot of one workload. Its uid and its name follow from
these three, so a placement record of 16 bytes needs neither, and every manager and
agent agrees on them without asking.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# No vowels, and none of 0 1 l: a suffix spells no word and is read aloud without doubt.
_SUFFIX_ALPHABET = "bcdfghjkmnpqrstvwxz2456789"

# RFC 1123, as Kubernetes names most of its objects.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether `text` may name a document or a node: lower case letters, digits and '-', at most 63."""
    return _LABEL.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class PodId:
    """One incarnation of one slot of one workload."""

    workload_uid: str
    slot: int
    incarnation: int

    def __str__(self) -> str:
        """The pod's uid, unique for ever: `<workload uid>.<slot>.<incarnation>`."""
        return f"{self.workload_uid}.{self.slot}.{self.incarnation}"

    @classmethod
    def parse(cls, uid: str) -> PodId:
        """The inverse of `str`. Raises ValueError on anything else."""
        workload_uid, slot, incarnation = uid.rsplit(".", 2)
        return cls(workload_uid, int(slot), int(incarnation))


def pod_name(workload: str, pod: PodId) -> str:
    """`<workload>-<slot>-<5 characters>`, the same wherever it is computed."""
    digest = int.from_bytes(hashlib.sha256(str(pod).encode()).digest()[:8], "big")
    suffix = ""
    for _ in range(5):
        digest, index = divmod(digest, len(_SUFFIX_ALPHABET))
        suffix += _SUFFIX_ALPHABET[index]
    return f"{workload}-{pod.slot}-{suffix}"
