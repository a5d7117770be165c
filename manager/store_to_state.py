"""The store's durable facts, folded into the leader's memory: listings, the watch, the sweep.

Every fact has one way in, whoever brings it, so that a missed watch event is repaired by the same
code that would have folded it in. What cannot be read harms only itself, unless placements depend
on it. What the leader itself commits is folded in by `changes_to_records`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import structlog

from bayplan.model.nodes import NodeIntent
from bayplan.model.policy import is_level
from bayplan.resources.document import parse_document
from bayplan.resources.problems import DocumentError
from bayplan.resources.workloads import Deployment
from manager.cluster_state import ClusterState, StoredResource
from manager.store import keys, records
from manager.store.port import KeyChange, KeyValue, Listing
from manager.store.registries import REGISTRIES, decode_login, parse_registry_key

log = structlog.get_logger(__name__)

# Documents that are given addresses or ports.
SERVICE_KINDS = ("Service", "Ingress")


def load(state: ClusterState, items: Iterable[KeyValue], revision: int) -> None:
    """Fold in a whole listing of the store.

    Nodes and templates first: placements name nodes by number, and book what templates ask for.
    Raises DamagedRecordError for damage that is not one document's own.
    """
    for item in sorted(items, key=lambda item: not item.key.startswith((keys.NODES, keys.REVISIONS))):
        _put(state, item.key, item.value, item.mod_revision)
    state.revision = state.watched_revision = revision


def apply_watched(state: ClusterState, changes: Iterable[KeyChange], revision: int) -> set[str]:
    """Fold in what the watch brought; returns the uids of workloads that it concerns, "*" for all.

    Keys that only the leader writes were folded in when they were committed: what the watch
    says of them is old news. The sweep finds what a stranger did to them.
    """
    dirty: set[str] = set()
    for change in changes:
        if not change.key.startswith((keys.NODE_INTENTS, keys.RESOURCES, keys.POLICIES, REGISTRIES)):
            continue
        if change.mod_revision <= state.known_revision(change.key):
            continue  # A sweep was faster.
        if change.key.startswith(keys.NODE_INTENTS):
            state.key_revisions[change.key] = change.mod_revision
            dirty |= _put_intent(state, change.key, change.value)
        elif change.value is None:
            dirty |= _drop(state, change.key)
            state.forget_key(change.key, change.mod_revision)
        elif change.key.startswith(REGISTRIES):
            state.key_revisions[change.key] = change.mod_revision
            _put_login(state, change.key, change.value)
        elif change.key.startswith(keys.POLICIES):
            state.key_revisions[change.key] = change.mod_revision
            _put_policy(state, change.key, change.value)
        else:
            dirty |= _put_resource(state, change.key, change.value, change.mod_revision)
    state.watched_revision = max(state.watched_revision, revision)
    state.revision = max(state.revision, revision)
    return dirty


def repair(state: ClusterState, listing: Listing) -> set[str]:
    """Compare a listing with memory and fold in what differs: what a watch has missed.

    Old etcd versions lose watch events. Returns the workloads concerned. Keys that were committed
    after the listing was made are newer in memory and stay.
    """
    dirty: set[str] = set()
    listed = {item.key: item for item in listing.items if _is_held(item.key)}
    for key in state.key_revisions.keys() - listed.keys():
        if state.key_revisions[key] <= listing.revision and key.startswith(
            (keys.RESOURCES, keys.POLICIES, REGISTRIES)
        ):
            log.warning("watch.missed", key=key, what="deleted")
            dirty |= _drop(state, key)
    for key, item in listed.items():
        if state.known_revision(key) >= item.mod_revision:
            continue
        log.warning("watch.missed", key=key, what="changed")
        if key.startswith((keys.PLACEMENTS, keys.SERVICES)):
            # Only leaders write these, one at a time: a stranger did. What memory holds is told
            # to agents, so it is what counts; the next commit of the key writes it again.
            continue
        _put(state, key, item.value, item.mod_revision)
        dirty.add("*")
    state.watched_revision = max(state.watched_revision, listing.revision)
    state.revision = max(state.revision, listing.revision)
    state.settle_gone_keys(listing.revision)
    return dirty


def _is_held(key: str) -> bool:
    return key.startswith(
        (
            keys.RESOURCES,
            keys.PLACEMENTS,
            keys.NODES,
            keys.NODE_INTENTS,
            keys.REVISIONS,
            keys.SERVICES,
            keys.POLICIES,
            REGISTRIES,
        )
    )


def _put(state: ClusterState, key: str, value: bytes, mod_revision: int) -> None:
    for prefix, fold in (
        (keys.RESOURCES, partial(_put_resource, mod_revision=mod_revision)),
        (keys.NODES, _put_facts),
        (keys.NODE_INTENTS, _put_intent),
        (keys.PLACEMENTS, _put_chunk),
        (keys.REVISIONS, _put_revision),
        (keys.SERVICES, _put_allocation),
        (keys.POLICIES, _put_policy),
        (keys.ALLOCATION_CURSOR, _put_cursor),
        (keys.NETWORK, _put_network),
        (keys.COMMIT, _put_commit),
        (keys.META, _put_meta),
        (keys.DECISIONS, _put_decisions),
        (REGISTRIES, _put_login),
    ):
        if key.startswith(prefix):
            fold(state, key, value)
            break
    else:
        if not key.startswith(keys.OTHERS):
            log.warning("store_key.ignored", key=key)
    if _is_held(key):
        state.key_revisions[key] = mod_revision


def _put_facts(state: ClusterState, key: str, value: bytes) -> None:
    try:
        facts = records.decode_node(value)
    except records.DamagedRecordError as error:
        # If a placement names it, that cannot be read, and that is an error.
        log.warning("store_key.ignored", key=key, error=str(error))
        return
    state.put_node(facts)


def _put_revision(state: ClusterState, key: str, value: bytes) -> None:
    parsed = keys.parse_revision(key)
    if parsed is None:
        log.warning("store_key.ignored", key=key)
        return
    state.revisions[parsed] = records.decode_json(value)


def _put_allocation(state: ClusterState, key: str, value: bytes) -> None:
    uid = keys.parse_service(key)
    try:
        allocation = records.decode_allocation(value)
    except records.DamagedRecordError as error:
        log.warning("store_key.ignored", key=key, error=str(error))
        return  # It is given anew.
    if uid is None:
        log.warning("store_key.ignored", key=key)
        return
    state.allocations[uid] = allocation


def _put_cursor(state: ClusterState, key: str, value: bytes) -> None:
    if key != keys.ALLOCATION_CURSOR:
        log.warning("store_key.ignored", key=key)
        return
    try:
        state.cursor = records.decode_cursor(value)
    except records.DamagedRecordError as error:
        log.warning("store_key.ignored", key=key, error=str(error))


def _put_network(state: ClusterState, key: str, value: bytes) -> None:
    if key != keys.NETWORK:
        log.warning("store_key.ignored", key=key)
        return
    state.network, state.is_founded = records.decode_network(value), True


def _put_commit(state: ClusterState, _key: str, value: bytes) -> None:
    state.commit_value = value


def _put_meta(state: ClusterState, _key: str, value: bytes) -> None:
    state.meta = records.decode_meta(value)


def _put_decisions(state: ClusterState, key: str, _value: bytes) -> None:
    if keys.parse_decisions(key) is None:
        log.warning("store_key.ignored", key=key)
        return
    state.decisions.append(key)


def _put_chunk(state: ClusterState, key: str, value: bytes) -> None:
    parsed = keys.parse_placements(key)
    if parsed is None:
        log.warning("store_key.ignored", key=key)
        return
    uid, index = parsed
    names = {entry.facts.number: name for name, entry in state.nodes.items()}
    chunk = records.decode_chunk(uid, index, value, names)
    state.next_incarnation[uid, index] = chunk.next_incarnation
    for placement in chunk.placements:
        state.put_placement(placement)


def _put_resource(state: ClusterState, key: str, value: bytes, mod_revision: int) -> set[str]:
    state.key_revisions[key] = mod_revision
    place = keys.parse_resource(key)
    if place is None:
        log.warning("store_key.ignored", key=key)
        return set()
    if place[0] in SERVICE_KINDS:
        state.claims_version += 1
    state.touched.document(place)
    state.unreadable = {uid: known for uid, known in state.unreadable.items() if known != place}
    stored = None
    try:
        stored = records.decode_document(value)
        resource = parse_document(stored.document).resource
    except (DocumentError, records.DamagedRecordError) as error:
        if stored is not None and place[0] == "Deployment":
            state.unreadable[stored.uid] = place
        # A document that cannot be read harms only itself: what runs of it is left alone.
        state.broken[key] = str(error)
        log.warning("document.unreadable", key=key, error=str(error))
        return set()
    state.broken.pop(key, None)
    before = state.resources.get(place)
    state.resources[place] = StoredResource(resource, stored, mod_revision)
    dirty: set[str] = set()
    if before is not None and before.stored.uid != stored.uid:
        state.workloads.pop(before.stored.uid, None)
        state.services.pop(before.stored.uid, None)
        dirty.add(before.stored.uid)
    if place[0] in SERVICE_KINDS:
        state.services[stored.uid] = place
        dirty.add(stored.uid)
    if isinstance(resource, Deployment):
        state.workloads[stored.uid] = place
        dirty.add(stored.uid)
    elif stored.deleting:
        dirty.add(stored.uid)
    return dirty


def _put_intent(state: ClusterState, key: str, value: bytes | None) -> set[str]:
    name = keys.parse_node_intent(key)
    if name is None:
        log.warning("store_key.ignored", key=key)
        return set()
    try:
        intent = NodeIntent() if value is None else records.decode_node_intent(value)
    except records.DamagedRecordError as error:
        log.warning("store_key.ignored", key=key, error=str(error))
        return set()
    state.intents[name] = intent
    if name in state.nodes:
        state.nodes[name].intent = intent
    return {"*"}


def _put_policy(state: ClusterState, key: str, value: bytes) -> None:
    namespace, level = keys.parse_policy(key), value.decode(errors="replace")
    if namespace is None or not is_level(level):
        log.warning("store_key.ignored", key=key)
        return
    state.policies[namespace] = level


def _put_login(state: ClusterState, key: str, value: bytes) -> None:
    registry = parse_registry_key(key)
    if registry is None:
        log.warning("store_key.ignored", key=key)
        return
    try:
        login = decode_login(value)
    except records.DamagedRecordError as error:
        # What agents were told before stays: it may still open the registry.
        log.warning("store_key.ignored", key=key, error=str(error))
        return
    state.put_credential(registry, username=login.username, password=login.password)


def _drop(state: ClusterState, key: str) -> set[str]:
    """Forget what was deleted by others; returns the workloads concerned."""
    if key.startswith(keys.RESOURCES):
        return _drop_resource(state, key)
    if key.startswith(keys.POLICIES):
        state.key_revisions.pop(key, None)
        state.policies.pop(keys.parse_policy(key) or "", None)
        return set()
    state.key_revisions.pop(key, None)
    registry = parse_registry_key(key)
    if registry is not None:
        state.drop_credential(registry)
    return set()


def _drop_resource(state: ClusterState, key: str) -> set[str]:
    state.key_revisions.pop(key, None)
    was_broken = state.broken.pop(key, None) is not None
    place = keys.parse_resource(key)
    if place is None:
        return set()
    if place[0] in SERVICE_KINDS:
        state.claims_version += 1
    state.touched.document(place)
    state.unreadable = {uid: known for uid, known in state.unreadable.items() if known != place}
    entry = state.resources.pop(place, None)
    if entry is None:
        # What belonged to an unreadable document was left alone until now.
        return {"*"} if was_broken else set()
    state.workloads.pop(entry.stored.uid, None)
    state.services.pop(entry.stored.uid, None)
    # Somebody removed the document without waiting for its pods: they are stopped all the same.
    return {entry.stored.uid}
