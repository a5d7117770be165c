from bayplan.v1 import agent_link_pb2 as _agent_link_pb2
from bayplan.v1 import callers_pb2 as _callers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mark(_message.Message):
    __slots__ = ("store", "revision", "epoch", "complete", "notice")
    STORE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    store: str
    revision: int
    epoch: int
    complete: bool
    notice: str
    def __init__(self, store: _Optional[str] = ..., revision: _Optional[int] = ..., epoch: _Optional[int] = ..., complete: _Optional[bool] = ..., notice: _Optional[str] = ...) -> None: ...

class Document(_message.Message):
    __slots__ = ("kind", "namespace", "name", "json", "status_json", "version", "uid", "created_ms", "generation", "deleting")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    STATUS_JSON_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DELETING_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    json: str
    status_json: str
    version: int
    uid: str
    created_ms: int
    generation: int
    deleting: bool
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., json: _Optional[str] = ..., status_json: _Optional[str] = ..., version: _Optional[int] = ..., uid: _Optional[str] = ..., created_ms: _Optional[int] = ..., generation: _Optional[int] = ..., deleting: _Optional[bool] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("documents", "dry_run", "expected_version", "seen")
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    documents: _containers.RepeatedScalarFieldContainer[str]
    dry_run: bool
    expected_version: int
    seen: Mark
    def __init__(self, documents: _Optional[_Iterable[str]] = ..., dry_run: _Optional[bool] = ..., expected_version: _Optional[int] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("kind", "namespace", "name", "result", "version", "warnings", "generation")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    result: str
    version: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    generation: int
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., result: _Optional[str] = ..., version: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., generation: _Optional[int] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("mark", "applied")
    MARK_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    applied: _containers.RepeatedCompositeFieldContainer[Applied]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., applied: _Optional[_Iterable[_Union[Applied, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "seen", "show_secrets")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_SECRETS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    seen: Mark
    show_secrets: bool
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ..., show_secrets: _Optional[bool] = ...) -> None: ...

class GetReply(_message.Message):
    __slots__ = ("mark", "document")
    MARK_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    document: Document
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., document: _Optional[_Union[Document, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("kind", "namespace", "selector", "seen", "show_secrets")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_SECRETS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    selector: _containers.ScalarMap[str, str]
    seen: Mark
    show_secrets: bool
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., selector: _Optional[_Mapping[str, str]] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ..., show_secrets: _Optional[bool] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("mark", "documents")
    MARK_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("mark", "initial", "documents", "deleted")
    MARK_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    initial: bool
    documents: _containers.RepeatedCompositeFieldContainer[Document]
    deleted: _containers.RepeatedCompositeFieldContainer[Document]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., initial: _Optional[bool] = ..., documents: _Optional[_Iterable[_Union[Document, _Mapping]]] = ..., deleted: _Optional[_Iterable[_Union[Document, _Mapping]]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "expected_version", "seen")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    expected_version: int
    seen: Mark
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., expected_version: _Optional[int] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ("mark", "uid")
    MARK_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    uid: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., uid: _Optional[str] = ...) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "replicas", "expected_replicas", "seen")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    kind: str
    namespace: str
    name: str
    replicas: int
    expected_replicas: int
    seen: Mark
    def __init__(self, kind: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., replicas: _Optional[int] = ..., expected_replicas: _Optional[int] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ScaleReply(_message.Message):
    __slots__ = ("mark", "before", "generation")
    MARK_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    before: int
    generation: int
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., before: _Optional[int] = ..., generation: _Optional[int] = ...) -> None: ...

class UpdateNodeRequest(_message.Message):
    __slots__ = ("name", "unschedulable", "drain", "set_labels", "remove_labels", "set_taints", "remove_taints", "lost", "remove", "seen")
    class SetLabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    UNSCHEDULABLE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    SET_LABELS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_LABELS_FIELD_NUMBER: _ClassVar[int]
    SET_TAINTS_FIELD_NUMBER: _ClassVar[int]
    REMOVE_TAINTS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    unschedulable: bool
    drain: bool
    set_labels: _containers.ScalarMap[str, str]
    remove_labels: _containers.RepeatedScalarFieldContainer[str]
    set_taints: _containers.RepeatedCompositeFieldContainer[Taint]
    remove_taints: _containers.RepeatedCompositeFieldContainer[Taint]
    lost: bool
    remove: bool
    seen: Mark
    def __init__(self, name: _Optional[str] = ..., unschedulable: _Optional[bool] = ..., drain: _Optional[bool] = ..., set_labels: _Optional[_Mapping[str, str]] = ..., remove_labels: _Optional[_Iterable[str]] = ..., set_taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., remove_taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., lost: _Optional[bool] = ..., remove: _Optional[bool] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class UpdateNodeReply(_message.Message):
    __slots__ = ("mark", "changed")
    MARK_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    changed: bool
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., changed: _Optional[bool] = ...) -> None: ...

class Taint(_message.Message):
    __slots__ = ("key", "value", "effect")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    effect: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., effect: _Optional[str] = ...) -> None: ...

class SetRegistryRequest(_message.Message):
    __slots__ = ("registry", "username", "password", "seen")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    registry: str
    username: str
    password: str
    seen: Mark
    def __init__(self, registry: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class SetRegistryReply(_message.Message):
    __slots__ = ("mark", "result", "registry")
    MARK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    result: str
    registry: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., result: _Optional[str] = ..., registry: _Optional[str] = ...) -> None: ...

class DeleteRegistryRequest(_message.Message):
    __slots__ = ("registry", "seen")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    registry: str
    seen: Mark
    def __init__(self, registry: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class DeleteRegistryReply(_message.Message):
    __slots__ = ("mark", "registry")
    MARK_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    registry: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., registry: _Optional[str] = ...) -> None: ...

class ListRegistriesRequest(_message.Message):
    __slots__ = ("seen",)
    SEEN_FIELD_NUMBER: _ClassVar[int]
    seen: Mark
    def __init__(self, seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListRegistriesReply(_message.Message):
    __slots__ = ("mark", "registries")
    MARK_FIELD_NUMBER: _ClassVar[int]
    REGISTRIES_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    registries: _containers.RepeatedCompositeFieldContainer[Registry]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., registries: _Optional[_Iterable[_Union[Registry, _Mapping]]] = ...) -> None: ...

class Registry(_message.Message):
    __slots__ = ("registry", "username")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    registry: str
    username: str
    def __init__(self, registry: _Optional[str] = ..., username: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("namespace", "level")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    level: str
    def __init__(self, namespace: _Optional[str] = ..., level: _Optional[str] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("policy", "seen")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    seen: Mark
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class SetPolicyReply(_message.Message):
    __slots__ = ("mark", "result")
    MARK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    result: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., result: _Optional[str] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("seen",)
    SEEN_FIELD_NUMBER: _ClassVar[int]
    seen: Mark
    def __init__(self, seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListPoliciesReply(_message.Message):
    __slots__ = ("mark", "policies")
    MARK_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class Pod(_message.Message):
    __slots__ = ("uid", "name", "namespace", "workload_kind", "workload", "workload_uid", "slot", "incarnation", "revision", "want", "node", "status", "ready", "why", "detail", "created_ms", "labels", "current", "usage", "ended_ms", "template_json")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    UID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_KIND_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_UID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    TEMPLATE_JSON_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    namespace: str
    workload_kind: str
    workload: str
    workload_uid: str
    slot: int
    incarnation: int
    revision: str
    want: _agent_link_pb2.Want
    node: str
    status: str
    ready: bool
    why: str
    detail: _agent_link_pb2.PodStatus
    created_ms: int
    labels: _containers.ScalarMap[str, str]
    current: bool
    usage: _agent_link_pb2.Usage
    ended_ms: int
    template_json: str
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ..., workload_kind: _Optional[str] = ..., workload: _Optional[str] = ..., workload_uid: _Optional[str] = ..., slot: _Optional[int] = ..., incarnation: _Optional[int] = ..., revision: _Optional[str] = ..., want: _Optional[_Union[_agent_link_pb2.Want, str]] = ..., node: _Optional[str] = ..., status: _Optional[str] = ..., ready: _Optional[bool] = ..., why: _Optional[str] = ..., detail: _Optional[_Union[_agent_link_pb2.PodStatus, _Mapping]] = ..., created_ms: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., current: _Optional[bool] = ..., usage: _Optional[_Union[_agent_link_pb2.Usage, _Mapping]] = ..., ended_ms: _Optional[int] = ..., template_json: _Optional[str] = ...) -> None: ...

class ListPodsRequest(_message.Message):
    __slots__ = ("namespace", "workload_kind", "workload", "name", "node", "selector", "attempts", "seen")
    class SelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_KIND_FIELD_NUMBER: _ClassVar[int]
    WORKLOAD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    workload_kind: str
    workload: str
    name: str
    node: str
    selector: _containers.ScalarMap[str, str]
    attempts: bool
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., workload_kind: _Optional[str] = ..., workload: _Optional[str] = ..., name: _Optional[str] = ..., node: _Optional[str] = ..., selector: _Optional[_Mapping[str, str]] = ..., attempts: _Optional[bool] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListPodsReply(_message.Message):
    __slots__ = ("mark", "pods")
    MARK_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    pods: _containers.RepeatedCompositeFieldContainer[Pod]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ...) -> None: ...

class PodsEvent(_message.Message):
    __slots__ = ("mark", "initial", "pods", "deleted")
    MARK_FIELD_NUMBER: _ClassVar[int]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    initial: bool
    pods: _containers.RepeatedCompositeFieldContainer[Pod]
    deleted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., initial: _Optional[bool] = ..., pods: _Optional[_Iterable[_Union[Pod, _Mapping]]] = ..., deleted: _Optional[_Iterable[str]] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("name", "seen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    seen: Mark
    def __init__(self, name: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListNodesReply(_message.Message):
    __slots__ = ("mark", "nodes")
    MARK_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "status", "why", "unschedulable", "drain", "labels", "taints", "address", "version", "engine", "capacity", "reserved", "used", "pods", "joined_ms", "last_heard_ms", "boot_id", "condition", "via")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    UNSCHEDULABLE_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TAINTS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    JOINED_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARD_MS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    name: str
    status: str
    why: str
    unschedulable: bool
    drain: bool
    labels: _containers.ScalarMap[str, str]
    taints: _containers.RepeatedCompositeFieldContainer[Taint]
    address: str
    version: str
    engine: str
    capacity: _agent_link_pb2.Amounts
    reserved: _agent_link_pb2.Amounts
    used: _agent_link_pb2.Amounts
    pods: int
    joined_ms: int
    last_heard_ms: int
    boot_id: str
    condition: _agent_link_pb2.NodeCondition
    via: str
    def __init__(self, name: _Optional[str] = ..., status: _Optional[str] = ..., why: _Optional[str] = ..., unschedulable: _Optional[bool] = ..., drain: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., taints: _Optional[_Iterable[_Union[Taint, _Mapping]]] = ..., address: _Optional[str] = ..., version: _Optional[str] = ..., engine: _Optional[str] = ..., capacity: _Optional[_Union[_agent_link_pb2.Amounts, _Mapping]] = ..., reserved: _Optional[_Union[_agent_link_pb2.Amounts, _Mapping]] = ..., used: _Optional[_Union[_agent_link_pb2.Amounts, _Mapping]] = ..., pods: _Optional[int] = ..., joined_ms: _Optional[int] = ..., last_heard_ms: _Optional[int] = ..., boot_id: _Optional[str] = ..., condition: _Optional[_Union[_agent_link_pb2.NodeCondition, _Mapping]] = ..., via: _Optional[str] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("namespace", "object", "since_ms", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    object: str
    since_ms: int
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., object: _Optional[str] = ..., since_ms: _Optional[int] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("at_ms", "type", "reason", "namespace", "object", "message", "count")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    type: str
    reason: str
    namespace: str
    object: str
    message: str
    count: int
    def __init__(self, at_ms: _Optional[int] = ..., type: _Optional[str] = ..., reason: _Optional[str] = ..., namespace: _Optional[str] = ..., object: _Optional[str] = ..., message: _Optional[str] = ..., count: _Optional[int] = ..., **kwargs) -> None: ...

class ListEventsReply(_message.Message):
    __slots__ = ("mark", "events")
    MARK_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class WhyRequest(_message.Message):
    __slots__ = ("namespace", "pod", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class WhyReply(_message.Message):
    __slots__ = ("mark", "pod", "decisions", "summary")
    MARK_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    pod: Pod
    decisions: _containers.RepeatedCompositeFieldContainer[Event]
    summary: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., pod: _Optional[_Union[Pod, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., summary: _Optional[str] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("namespace", "pod", "node", "options", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    node: str
    options: _agent_link_pb2.LogOptions
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., node: _Optional[str] = ..., options: _Optional[_Union[_agent_link_pb2.LogOptions, _Mapping]] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class LogChunk(_message.Message):
    __slots__ = ("stdout", "stderr")
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ...) -> None: ...

class ExecInput(_message.Message):
    __slots__ = ("start", "stdin", "stdin_end", "resize")
    START_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDIN_END_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    start: ExecStart
    stdin: bytes
    stdin_end: bool
    resize: _agent_link_pb2.Resize
    def __init__(self, start: _Optional[_Union[ExecStart, _Mapping]] = ..., stdin: _Optional[bytes] = ..., stdin_end: _Optional[bool] = ..., resize: _Optional[_Union[_agent_link_pb2.Resize, _Mapping]] = ...) -> None: ...

class ExecStart(_message.Message):
    __slots__ = ("namespace", "pod", "options", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    options: _agent_link_pb2.ExecOptions
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., options: _Optional[_Union[_agent_link_pb2.ExecOptions, _Mapping]] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ExecOutput(_message.Message):
    __slots__ = ("stdout", "stderr", "exit_code")
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    stdout: bytes
    stderr: bytes
    exit_code: int
    def __init__(self, stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., exit_code: _Optional[int] = ...) -> None: ...

class PortForwardInput(_message.Message):
    __slots__ = ("start", "data", "end")
    START_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    start: PortForwardStart
    data: bytes
    end: bool
    def __init__(self, start: _Optional[_Union[PortForwardStart, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[bool] = ...) -> None: ...

class PortForwardStart(_message.Message):
    __slots__ = ("namespace", "pod", "port", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    port: int
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., port: _Optional[int] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class PortForwardOutput(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ListEndpointsRequest(_message.Message):
    __slots__ = ("namespace", "service", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    service: str
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., service: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListEndpointsReply(_message.Message):
    __slots__ = ("mark", "services")
    MARK_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    services: _containers.RepeatedCompositeFieldContainer[ServiceEndpoints]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., services: _Optional[_Iterable[_Union[ServiceEndpoints, _Mapping]]] = ...) -> None: ...

class ServiceEndpoints(_message.Message):
    __slots__ = ("namespace", "name", "ports", "endpoints", "created_ms", "why")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    ports: _containers.RepeatedCompositeFieldContainer[_agent_link_pb2.ServicePort]
    endpoints: _containers.RepeatedCompositeFieldContainer[_agent_link_pb2.Endpoint]
    created_ms: int
    why: str
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[_agent_link_pb2.ServicePort, _Mapping]]] = ..., endpoints: _Optional[_Iterable[_Union[_agent_link_pb2.Endpoint, _Mapping]]] = ..., created_ms: _Optional[int] = ..., why: _Optional[str] = ...) -> None: ...

class TopServicesRequest(_message.Message):
    __slots__ = ("namespace", "seen")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    seen: Mark
    def __init__(self, namespace: _Optional[str] = ..., seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class TopServicesReply(_message.Message):
    __slots__ = ("mark", "services")
    MARK_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    services: _containers.RepeatedCompositeFieldContainer[ServiceTop]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., services: _Optional[_Iterable[_Union[ServiceTop, _Mapping]]] = ...) -> None: ...

class ServiceTop(_message.Message):
    __slots__ = ("namespace", "name", "port", "requests_per_s", "errors_per_s", "p50_ms", "p99_ms", "connections", "endpoints")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_S_FIELD_NUMBER: _ClassVar[int]
    ERRORS_PER_S_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    port: int
    requests_per_s: float
    errors_per_s: float
    p50_ms: float
    p99_ms: float
    connections: int
    endpoints: int
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., port: _Optional[int] = ..., requests_per_s: _Optional[float] = ..., errors_per_s: _Optional[float] = ..., p50_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., connections: _Optional[int] = ..., endpoints: _Optional[int] = ...) -> None: ...

class CheckNetworkRequest(_message.Message):
    __slots__ = ("seen",)
    SEEN_FIELD_NUMBER: _ClassVar[int]
    seen: Mark
    def __init__(self, seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class CheckNetworkReply(_message.Message):
    __slots__ = ("mark", "paths", "silent", "healthy", "failed")
    MARK_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    SILENT_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    paths: _containers.RepeatedCompositeFieldContainer[_agent_link_pb2.NetworkPath]
    silent: _containers.RepeatedScalarFieldContainer[str]
    healthy: int
    failed: int
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., paths: _Optional[_Iterable[_Union[_agent_link_pb2.NetworkPath, _Mapping]]] = ..., silent: _Optional[_Iterable[str]] = ..., healthy: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class ListManagersRequest(_message.Message):
    __slots__ = ("seen",)
    SEEN_FIELD_NUMBER: _ClassVar[int]
    seen: Mark
    def __init__(self, seen: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...

class ListManagersReply(_message.Message):
    __slots__ = ("mark", "managers")
    MARK_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    managers: _containers.RepeatedCompositeFieldContainer[Manager]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., managers: _Optional[_Iterable[_Union[Manager, _Mapping]]] = ...) -> None: ...

class Manager(_message.Message):
    __slots__ = ("id", "address", "leader", "version", "state", "alarms")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    leader: bool
    version: str
    state: str
    alarms: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., leader: _Optional[bool] = ..., version: _Optional[str] = ..., state: _Optional[str] = ..., alarms: _Optional[_Iterable[str]] = ...) -> None: ...

class VersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionReply(_message.Message):
    __slots__ = ("mark", "version", "manager", "cluster", "etcd_version")
    MARK_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    ETCD_VERSION_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    version: str
    manager: str
    cluster: str
    etcd_version: str
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., version: _Optional[str] = ..., manager: _Optional[str] = ..., cluster: _Optional[str] = ..., etcd_version: _Optional[str] = ...) -> None: ...

class AdoptRequest(_message.Message):
    __slots__ = ("dry_run", "without")
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    without: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, dry_run: _Optional[bool] = ..., without: _Optional[_Iterable[str]] = ...) -> None: ...

class AdoptReply(_message.Message):
    __slots__ = ("mark", "pods", "documents", "unheard")
    MARK_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    DOCUMENTS_FIELD_NUMBER: _ClassVar[int]
    UNHEARD_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    pods: int
    documents: _containers.RepeatedScalarFieldContainer[str]
    unheard: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ..., pods: _Optional[int] = ..., documents: _Optional[_Iterable[str]] = ..., unheard: _Optional[_Iterable[str]] = ...) -> None: ...

class AcceptRestoreRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AcceptRestoreReply(_message.Message):
    __slots__ = ("mark",)
    MARK_FIELD_NUMBER: _ClassVar[int]
    mark: Mark
    def __init__(self, mark: _Optional[_Union[Mark, _Mapping]] = ...) -> None: ...
