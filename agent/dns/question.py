"""What others are asked, and what they said: the key and the value of the cache."""

from __future__ import annotations

from dataclasses import dataclass

import dns.name
import dns.rdatatype


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Equal for all who ask alike, however they write the name."""

    name: dns.name.Name  # Names compare without regard to case.
    kind: dns.rdatatype.RdataType
    wants_dnssec: bool = False  # DO: signatures are to be in the answer.
    is_unchecked: bool = False  # CD: the client verifies by itself.
