"""Every key we use in etcd.

One writer per key: users' intent by the control API, identities and the keyring by any manager with
compare-and-swap, each manager its own among the managers', the rest by the leader. What does not parse under our prefix is junk that somebody else put there: parsers answer
None, the reader warns, nobody crashes.
"""

from __future__ import annotations

import re

ROOT = "/bayplan/v1/"

META = ROOT + "meta"
"""Format version, cluster id, store incarnation (records.Meta)."""
LEADER = ROOT + "leader"
"""Election key on a lease: who leads."""
COMMIT = ROOT + "commit"
"""(epoch, sequence) of the last commit."""
TAKEOVER = ROOT + "takeover"
"""On a lease of its own: a leader was deposed less than 30 s ago."""
KEYRING = ROOT + "keyring"
"""The data keys, wrapped by the cluster key (sealing.Keyring)."""
NETWORK = ROOT + "network"
"""The pods' network, as the cluster was founded (bayplan.model.network)."""
ALLOCATION_CURSOR = ROOT + "allocation-cursor"
"""Which address and node port were given last (bayplan.model.services)."""

MANAGERS = ROOT + "managers/"
RESOURCES = ROOT + "resources/"
PLACEMENTS = ROOT + "placements/"
REVISIONS = ROOT + "revisions/"
NODES = ROOT + "nodes/"
NODE_INTENTS = ROOT + "node-intents/"
SERVICES = ROOT + "services/"
POLICIES = ROOT + "policies/"
DECISIONS = ROOT + "decisions/"
PKI = ROOT + "pki/"
PKI_TOKENS = PKI + "tokens/"
PKI_IDENTITIES = PKI + "identities/"
SECRETS = ROOT + "secrets/"
OTHERS = (META, LEADER, COMMIT, TAKEOVER, KEYRING, MANAGERS, PKI, SECRETS)
"""Keys that the leader does not keep in memory: of the control plane itself, of access, and secrets."""

# What may stand between two slashes of a key.
_PART = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,252}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
# Ticks are padded, so that the order of keys is the order of time.
_TICK_DIGITS = 16
_TICK = re.compile(r"[0-9]{16}")


def manager(manager_id: str) -> str:
    """Key of a living manager's address."""
    return MANAGERS + _checked(manager_id)


def parse_manager(key: str) -> str | None:
    """Manager id."""
    return _only(_parts(key, MANAGERS, 1))


def resource(kind: str, namespace: str, name: str) -> str:
    """Key of a document."""
    return f"{RESOURCES}{_checked(kind)}/{_checked(namespace)}/{_checked(name)}"


def resources_of(kind: str, namespace: str | None = None) -> str:
    """Prefix of all documents of a kind, in one namespace if given."""
    prefix = f"{RESOURCES}{_checked(kind)}/"
    return f"{prefix}{_checked(namespace)}/" if namespace else prefix


def parse_resource(key: str) -> tuple[str, str, str] | None:
    """(kind, namespace, name)."""
    match _parts(key, RESOURCES, 3):
        case [kind, namespace, name]:
            return kind, namespace, name
        case _:
            return None


def policy(namespace: str) -> str:
    """Key of a namespace's policy: its level as text (bayplan.model.policy)."""
    return f"{POLICIES}{_checked(namespace)}"


def parse_policy(key: str) -> str | None:
    """Namespace."""
    return _only(_parts(key, POLICIES, 1))


def placements(workload_uid: str, chunk: int) -> str:
    """Key of a chunk of a workload's placements (records.Chunk)."""
    return f"{placements_of(workload_uid)}{chunk}"


def placements_of(workload_uid: str) -> str:
    """Prefix of all chunks of a workload."""
    return f"{PLACEMENTS}{_checked(workload_uid)}/"


def parse_placements(key: str) -> tuple[str, int] | None:
    """(workload uid, chunk)."""
    match _parts(key, PLACEMENTS, 2):
        case [uid, chunk] if _NUMBER.fullmatch(chunk):
            return uid, int(chunk)
        case _:
            return None


def revision(workload_uid: str, template_hash: str) -> str:
    """Key of a pod template."""
    return f"{revisions_of(workload_uid)}{_checked(template_hash)}"


def revisions_of(workload_uid: str) -> str:
    """Prefix of all templates of a workload."""
    return f"{REVISIONS}{_checked(workload_uid)}/"


def parse_revision(key: str) -> tuple[str, str] | None:
    """(workload uid, template hash)."""
    match _parts(key, REVISIONS, 2):
        case [uid, template_hash]:
            return uid, template_hash
        case _:
            return None


def node(name: str) -> str:
    """Key of what a node registered (records.encode_node)."""
    return NODES + _checked(name)


def parse_node(key: str) -> str | None:
    """Node name."""
    return _only(_parts(key, NODES, 1))


def node_intent(name: str) -> str:
    """Key of what users want of a node. Written by the control API."""
    return NODE_INTENTS + _checked(name)


def parse_node_intent(key: str) -> str | None:
    """Node name."""
    return _only(_parts(key, NODE_INTENTS, 1))


def service(uid: str) -> str:
    """Key of what a Service or Ingress was given (records.encode_allocation)."""
    return SERVICES + _checked(uid)


def parse_service(key: str) -> str | None:
    """The document's uid."""
    return _only(_parts(key, SERVICES, 1))


def decisions(tick: int) -> str:
    """Key of one tick's decisions."""
    return f"{DECISIONS}{tick:0{_TICK_DIGITS}d}"


def parse_decisions(key: str) -> int | None:
    """The tick."""
    tick = _only(_parts(key, DECISIONS, 1))
    return int(tick) if tick and _TICK.fullmatch(tick) else None


def pki_ca() -> str:
    """Key of the roots that sign, with their private keys."""
    return PKI + "ca"


def pki_token(token_id: str) -> str:
    """Key of a join token."""
    return PKI_TOKENS + _checked(token_id)


def parse_pki_token(key: str) -> str | None:
    """The token's id."""
    return _only(_parts(key, PKI_TOKENS, 1))


def pki_identity(kind: str, name: str) -> str:
    """Key of what is known of a manager, node or user."""
    return f"{pki_identities_of(kind)}{_checked(name)}"


def pki_identities_of(kind: str) -> str:
    """Prefix of all identities of a kind."""
    return f"{PKI_IDENTITIES}{_checked(kind)}/"


def parse_pki_identity(key: str) -> tuple[str, str] | None:
    """(kind, name)."""
    return _pair(_parts(key, PKI_IDENTITIES, 2))


def secret(group: str, name: str) -> str:
    """Key of a secret."""
    return f"{secrets_of(group)}{_checked(name)}"


def secrets_of(group: str) -> str:
    """Prefix of all secrets of a group."""
    return f"{SECRETS}{_checked(group)}/"


def parse_secret(key: str) -> tuple[str, str] | None:
    """(group, name)."""
    return _pair(_parts(key, SECRETS, 2))


def _checked(part: str) -> str:
    """Guard against names that would reach other keys. Callers have refused bad names before."""
    if not _PART.fullmatch(part):
        raise ValueError(f"{part!r} cannot be part of a key")
    return part


def _parts(key: str, prefix: str, count: int) -> list[str] | None:
    if not key.startswith(prefix):
        return None
    parts = key.removeprefix(prefix).split("/")
    if len(parts) != count or not all(_PART.fullmatch(part) for part in parts):
        return None
    return parts


def _only(parts: list[str] | None) -> str | None:
    return parts[0] if parts else None


def _pair(parts: list[str] | None) -> tuple[str, str] | None:
    return (parts[0], parts[1]) if parts else None
