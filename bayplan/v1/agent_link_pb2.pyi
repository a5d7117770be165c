from bayplan.v1 import callers_pb2 as _callers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PodState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POD_STATE_UNSPECIFIED: _ClassVar[PodState]
    POD_STATE_ASSIGNED: _ClassVar[PodState]
    POD_STATE_PULLING: _ClassVar[PodState]
    POD_STATE_CREATED: _ClassVar[PodState]
    POD_STATE_STARTING: _ClassVar[PodState]
    POD_STATE_RUNNING: _ClassVar[PodState]
    POD_STATE_SUCCEEDED: _ClassVar[PodState]
    POD_STATE_FAILED: _ClassVar[PodState]
    POD_STATE_STOPPED: _ClassVar[PodState]
    POD_STATE_LOST: _ClassVar[PodState]

class NetworkMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NETWORK_MODE_UNSPECIFIED: _ClassVar[NetworkMode]
    NETWORK_MODE_VXLAN: _ClassVar[NetworkMode]
    NETWORK_MODE_WIREGUARD: _ClassVar[NetworkMode]
    NETWORK_MODE_OFF: _ClassVar[NetworkMode]

class Balance(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BALANCE_UNSPECIFIED: _ClassVar[Balance]
    BALANCE_LEAST_CONNECTIONS: _ClassVar[Balance]
    BALANCE_ROUND_ROBIN: _ClassVar[Balance]
    BALANCE_CAPACITY: _ClassVar[Balance]

class Want(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WANT_UNSPECIFIED: _ClassVar[Want]
    WANT_RUN: _ClassVar[Want]
    WANT_HANDOVER: _ClassVar[Want]
    WANT_STOP: _ClassVar[Want]
    WANT_LOST: _ClassVar[Want]
POD_STATE_UNSPECIFIED: PodState
POD_STATE_ASSIGNED: PodState
POD_STATE_PULLING: PodState
POD_STATE_CREATED: PodState
POD_STATE_STARTING: PodState
POD_STATE_RUNNING: PodState
POD_STATE_SUCCEEDED: PodState
POD_STATE_FAILED: PodState
POD_STATE_STOPPED: PodState
POD_STATE_LOST: PodState
NETWORK_MODE_UNSPECIFIED: NetworkMode
NETWORK_MODE_VXLAN: NetworkMode
NETWORK_MODE_WIREGUARD: NetworkMode
NETWORK_MODE_OFF: NetworkMode
BALANCE_UNSPECIFIED: Balance
BALANCE_LEAST_CONNECTIONS: Balance
BALANCE_ROUND_ROBIN: Balance
BALANCE_CAPACITY: Balance
WANT_UNSPECIFIED: Want
WANT_RUN: Want
WANT_HANDOVER: Want
WANT_STOP: Want
WANT_LOST: Want

class Epoch(_message.Message):
    __slots__ = ("store", "revision")
    STORE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    store: str
    revision: int
    def __init__(self, store: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class AgentMessage(_message.Message):
    __slots__ = ("hello", "status", "heartbeat", "witness", "goodbye", "stream_failed", "traffic_applied", "network_check")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FAILED_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_APPLIED_FIELD_NUMBER: _ClassVar[int]
    NETWORK_CHECK_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    status: StatusReport
    heartbeat: Heartbeat
    witness: WitnessResult
    goodbye: Goodbye
    stream_failed: StreamFailed
    traffic_applied: TrafficApplied
    network_check: NetworkCheckResult
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., status: _Optional[_Union[StatusReport, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., witness: _Optional[_Union[WitnessResult, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., stream_failed: _Optional[_Union[StreamFailed, _Mapping]] = ..., traffic_applied: _Optional[_Union[TrafficApplied, _Mapping]] = ..., network_check: _Optional[_Union[NetworkCheckResult, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node", "version", "boot_id", "session", "labels", "capacity", "address", "witness_port", "highest_epoch", "commit_sequence", "relay", "engine", "os", "arch", "cluster", "peers", "wireguard_key", "publish_addresses")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WITNESS_PORT_FIELD_NUMBER: _ClassVar[int]
    HIGHEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    ARCH_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    WIREGUARD_KEY_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    node: str
    version: str
    boot_id: str
    session: str
    labels: _containers.ScalarMap[str, str]
    capacity: Amounts
    address: str
    witness_port: int
    highest_epoch: Epoch
    commit_sequence: int
    relay: bool
    engine: str
    os: str
    arch: str
    cluster: str
    peers: _containers.RepeatedScalarFieldContainer[str]
    wireguard_key: str
    publish_addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., version: _Optional[str] = ..., boot_id: _Optional[str] = ..., session: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., capacity: _Optional[_Union[Amounts, _Mapping]] = ..., address: _Optional[str] = ..., witness_port: _Optional[int] = ..., highest_epoch: _Optional[_Union[Epoch, _Mapping]] = ..., commit_sequence: _Optional[int] = ..., relay: _Optional[bool] = ..., engine: _Optional[str] = ..., os: _Optional[str] = ..., arch: _Optional[str] = ..., cluster: _Optional[str] = ..., peers: _Optional[_Iterable[str]] = ..., wireguard_key: _Optional[str] = ..., publish_addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class Amounts(_message.Message):
    __slots__ = ("cpu_millis", "memory_bytes", "pods")
    CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    cpu_millis: int
    memory_bytes: int
    pods: int
    def __init__(self, cpu_millis: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., pods: _Optional[int] = ...) -> None: ...

class StatusReport(_message.Message):
    __slots__ = ("full", "pods", "forgotten", "condition")
    FULL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    FORGOTTEN_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    full: bool
    pods: _containers.RepeatedCompositeFieldContainer[PodStatus]
    forgotten: _containers.RepeatedScalarFieldContainer[str]
    condition: NodeCondition
    def __init__(self, full: _Optional[bool] = ..., pods: _Optional[_Iterable[_Union[PodStatus, _Mapping]]] = ..., forgotten: _Optional[_Iterable[str]] = ..., condition: _Optional[_Union[NodeCondition, _Mapping]] = ...) -> None: ...

class NodeCondition(_message.Message):
    __slots__ = ("engine_ok", "message", "disk_pressure", "network_problem", "proxy_problem")
    ENGINE_OK_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DISK_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    PROXY_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    engine_ok: bool
    message: str
    disk_pressure: bool
    network_problem: str
    proxy_problem: str
    def __init__(self, engine_ok: _Optional[bool] = ..., message: _Optional[str] = ..., disk_pressure: _Optional[bool] = ..., network_problem: _Optional[str] = ..., proxy_problem: _Optional[str] = ...) -> None: ...

class Exit(_message.Message):
    __slots__ = ("code", "reason", "message", "started_ms", "finished_ms", "container_id", "last_log_lines")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_MS_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_LOG_LINES_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    started_ms: int
    finished_ms: int
    container_id: str
    last_log_lines: str
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., started_ms: _Optional[int] = ..., finished_ms: _Optional[int] = ..., container_id: _Optional[str] = ..., last_log_lines: _Optional[str] = ...) -> None: ...

class ContainerStatus(_message.Message):
    __slots__ = ("name", "image", "image_digest", "container_id", "restarts", "running", "started_ms", "last_exit", "ready", "reason", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_EXIT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    image: str
    image_digest: str
    container_id: str
    restarts: int
    running: bool
    started_ms: int
    last_exit: Exit
    ready: bool
    reason: str
    message: str
    def __init__(self, name: _Optional[str] = ..., image: _Optional[str] = ..., image_digest: _Optional[str] = ..., container_id: _Optional[str] = ..., restarts: _Optional[int] = ..., running: _Optional[bool] = ..., started_ms: _Optional[int] = ..., last_exit: _Optional[_Union[Exit, _Mapping]] = ..., ready: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PodStatus(_message.Message):
    __slots__ = ("uid", "state", "ready", "reason", "message", "containers", "started_ms", "next_restart_ms", "address", "assignment")
    UID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    NEXT_RESTART_MS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENT_FIELD_NUMBER: _ClassVar[int]
    uid: str
    state: PodState
    ready: bool
    reason: str
    message: str
    containers: _containers.RepeatedCompositeFieldContainer[ContainerStatus]
    started_ms: int
    next_restart_ms: int
    address: str
    assignment: Assignment
    def __init__(self, uid: _Optional[str] = ..., state: _Optional[_Union[PodState, str]] = ..., ready: _Optional[bool] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., containers: _Optional[_Iterable[_Union[ContainerStatus, _Mapping]]] = ..., started_ms: _Optional[int] = ..., next_restart_ms: _Optional[int] = ..., address: _Optional[str] = ..., assignment: _Optional[_Union[Assignment, _Mapping]] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence", "sent_ms", "usage", "witnessed", "node_used", "services")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    WITNESSED_FIELD_NUMBER: _ClassVar[int]
    NODE_USED_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    sent_ms: int
    usage: _containers.RepeatedCompositeFieldContainer[Usage]
    witnessed: _containers.RepeatedScalarFieldContainer[str]
    node_used: Amounts
    services: _containers.RepeatedCompositeFieldContainer[ServiceUse]
    def __init__(self, sequence: _Optional[int] = ..., sent_ms: _Optional[int] = ..., usage: _Optional[_Iterable[_Union[Usage, _Mapping]]] = ..., witnessed: _Optional[_Iterable[str]] = ..., node_used: _Optional[_Union[Amounts, _Mapping]] = ..., services: _Optional[_Iterable[_Union[ServiceUse, _Mapping]]] = ...) -> None: ...

class ServiceUse(_message.Message):
    __slots__ = ("service", "port", "window_ms", "requests", "errors", "connections", "latency_counts")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_COUNTS_FIELD_NUMBER: _ClassVar[int]
    service: str
    port: int
    window_ms: int
    requests: int
    errors: int
    connections: int
    latency_counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, service: _Optional[str] = ..., port: _Optional[int] = ..., window_ms: _Optional[int] = ..., requests: _Optional[int] = ..., errors: _Optional[int] = ..., connections: _Optional[int] = ..., latency_counts: _Optional[_Iterable[int]] = ...) -> None: ...

class TrafficApplied(_message.Message):
    __slots__ = ("version", "draining", "problems")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    version: int
    draining: _containers.RepeatedScalarFieldContainer[str]
    problems: _containers.RepeatedCompositeFieldContainer[PortProblem]
    def __init__(self, version: _Optional[int] = ..., draining: _Optional[_Iterable[str]] = ..., problems: _Optional[_Iterable[_Union[PortProblem, _Mapping]]] = ...) -> None: ...

class PortProblem(_message.Message):
    __slots__ = ("service", "address", "port", "message")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    service: str
    address: str
    port: int
    message: str
    def __init__(self, service: _Optional[str] = ..., address: _Optional[str] = ..., port: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("uid", "cpu_millis", "memory_bytes")
    UID_FIELD_NUMBER: _ClassVar[int]
    CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    uid: str
    cpu_millis: int
    memory_bytes: int
    def __init__(self, uid: _Optional[str] = ..., cpu_millis: _Optional[int] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class WitnessResult(_message.Message):
    __slots__ = ("request", "node", "alive", "detail")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    request: int
    node: str
    alive: bool
    detail: str
    def __init__(self, request: _Optional[int] = ..., node: _Optional[str] = ..., alive: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "restarting")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESTARTING_FIELD_NUMBER: _ClassVar[int]
    reason: str
    restarting: bool
    def __init__(self, reason: _Optional[str] = ..., restarting: _Optional[bool] = ...) -> None: ...

class StreamFailed(_message.Message):
    __slots__ = ("stream_id", "message")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    message: str
    def __init__(self, stream_id: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ManagerMessage(_message.Message):
    __slots__ = ("epoch", "welcome", "redirect", "refusal", "assignments", "heartbeat_ack", "witness_request", "open_stream", "goodbye", "close_stream", "peers", "credentials", "renew_certificate", "network", "traffic", "network_check")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REDIRECT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    WITNESS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    OPEN_STREAM_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    CLOSE_STREAM_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    RENEW_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    NETWORK_CHECK_FIELD_NUMBER: _ClassVar[int]
    epoch: Epoch
    welcome: Welcome
    redirect: Redirect
    refusal: Refusal
    assignments: Assignments
    heartbeat_ack: HeartbeatAck
    witness_request: WitnessRequest
    open_stream: OpenStream
    goodbye: Goodbye
    close_stream: CloseStream
    peers: Peers
    credentials: Credentials
    renew_certificate: RenewCertificate
    network: Network
    traffic: Traffic
    network_check: NetworkCheck
    def __init__(self, epoch: _Optional[_Union[Epoch, _Mapping]] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., redirect: _Optional[_Union[Redirect, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., assignments: _Optional[_Union[Assignments, _Mapping]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., witness_request: _Optional[_Union[WitnessRequest, _Mapping]] = ..., open_stream: _Optional[_Union[OpenStream, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., close_stream: _Optional[_Union[CloseStream, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., credentials: _Optional[_Union[Credentials, _Mapping]] = ..., renew_certificate: _Optional[_Union[RenewCertificate, _Mapping]] = ..., network: _Optional[_Union[Network, _Mapping]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., network_check: _Optional[_Union[NetworkCheck, _Mapping]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("full", "settings", "subnet", "peers", "gone")
    FULL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    full: bool
    settings: NetworkSettings
    subnet: str
    peers: _containers.RepeatedCompositeFieldContainer[NetworkPeer]
    gone: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, full: _Optional[bool] = ..., settings: _Optional[_Union[NetworkSettings, _Mapping]] = ..., subnet: _Optional[str] = ..., peers: _Optional[_Iterable[_Union[NetworkPeer, _Mapping]]] = ..., gone: _Optional[_Iterable[str]] = ...) -> None: ...

class NetworkSettings(_message.Message):
    __slots__ = ("pod_range", "service_range", "domain", "mode", "id", "port")
    POD_RANGE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_RANGE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    pod_range: str
    service_range: str
    domain: str
    mode: NetworkMode
    id: int
    port: int
    def __init__(self, pod_range: _Optional[str] = ..., service_range: _Optional[str] = ..., domain: _Optional[str] = ..., mode: _Optional[_Union[NetworkMode, str]] = ..., id: _Optional[int] = ..., port: _Optional[int] = ...) -> None: ...

class NetworkPeer(_message.Message):
    __slots__ = ("node", "address", "subnet", "wireguard_key")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    WIREGUARD_KEY_FIELD_NUMBER: _ClassVar[int]
    node: str
    address: str
    subnet: str
    wireguard_key: str
    def __init__(self, node: _Optional[str] = ..., address: _Optional[str] = ..., subnet: _Optional[str] = ..., wireguard_key: _Optional[str] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("version", "full", "services", "gone", "endpoints", "ingress", "more", "keep")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    version: int
    full: bool
    services: _containers.RepeatedCompositeFieldContainer[Service]
    gone: _containers.RepeatedScalarFieldContainer[str]
    endpoints: _containers.RepeatedCompositeFieldContainer[EndpointChanges]
    ingress: Ingress
    more: bool
    keep: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[int] = ..., full: _Optional[bool] = ..., services: _Optional[_Iterable[_Union[Service, _Mapping]]] = ..., gone: _Optional[_Iterable[str]] = ..., endpoints: _Optional[_Iterable[_Union[EndpointChanges, _Mapping]]] = ..., ingress: _Optional[_Union[Ingress, _Mapping]] = ..., more: _Optional[bool] = ..., keep: _Optional[_Iterable[str]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("namespace", "name", "uid", "vip", "external_name", "ports", "balance", "affinity_s", "external_local", "internal_local", "publish_not_ready", "max_connections_per_pod", "queue_timeout_ms", "request_timeout_ms", "lacks_vip")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    VIP_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_NAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_S_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_LOCAL_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_LOCAL_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_NOT_READY_FIELD_NUMBER: _ClassVar[int]
    MAX_CONNECTIONS_PER_POD_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    LACKS_VIP_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    name: str
    uid: str
    vip: str
    external_name: str
    ports: _containers.RepeatedCompositeFieldContainer[ServicePort]
    balance: Balance
    affinity_s: int
    external_local: bool
    internal_local: bool
    publish_not_ready: bool
    max_connections_per_pod: int
    queue_timeout_ms: int
    request_timeout_ms: int
    lacks_vip: bool
    def __init__(self, namespace: _Optional[str] = ..., name: _Optional[str] = ..., uid: _Optional[str] = ..., vip: _Optional[str] = ..., external_name: _Optional[str] = ..., ports: _Optional[_Iterable[_Union[ServicePort, _Mapping]]] = ..., balance: _Optional[_Union[Balance, str]] = ..., affinity_s: _Optional[int] = ..., external_local: _Optional[bool] = ..., internal_local: _Optional[bool] = ..., publish_not_ready: _Optional[bool] = ..., max_connections_per_pod: _Optional[int] = ..., queue_timeout_ms: _Optional[int] = ..., request_timeout_ms: _Optional[int] = ..., lacks_vip: _Optional[bool] = ...) -> None: ...

class ServicePort(_message.Message):
    __slots__ = ("name", "port", "udp", "http", "node_port", "load_balancer", "proxy_protocol")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    UDP_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    NODE_PORT_FIELD_NUMBER: _ClassVar[int]
    LOAD_BALANCER_FIELD_NUMBER: _ClassVar[int]
    PROXY_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    name: str
    port: int
    udp: bool
    http: bool
    node_port: int
    load_balancer: bool
    proxy_protocol: bool
    def __init__(self, name: _Optional[str] = ..., port: _Optional[int] = ..., udp: _Optional[bool] = ..., http: _Optional[bool] = ..., node_port: _Optional[int] = ..., load_balancer: _Optional[bool] = ..., proxy_protocol: _Optional[bool] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("id", "node", "address", "name", "hostname", "ports", "ready", "weight")
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    id: str
    node: str
    address: str
    name: str
    hostname: str
    ports: _containers.RepeatedScalarFieldContainer[int]
    ready: bool
    weight: int
    def __init__(self, id: _Optional[str] = ..., node: _Optional[str] = ..., address: _Optional[str] = ..., name: _Optional[str] = ..., hostname: _Optional[str] = ..., ports: _Optional[_Iterable[int]] = ..., ready: _Optional[bool] = ..., weight: _Optional[int] = ...) -> None: ...

class EndpointChanges(_message.Message):
    __slots__ = ("service", "full", "put", "gone")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    service: str
    full: bool
    put: _containers.RepeatedCompositeFieldContainer[Endpoint]
    gone: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, service: _Optional[str] = ..., full: _Optional[bool] = ..., put: _Optional[_Iterable[_Union[Endpoint, _Mapping]]] = ..., gone: _Optional[_Iterable[str]] = ...) -> None: ...

class Ingress(_message.Message):
    __slots__ = ("rules", "certificates", "ports")
    RULES_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[IngressRule]
    certificates: _containers.RepeatedCompositeFieldContainer[IngressCertificate]
    ports: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rules: _Optional[_Iterable[_Union[IngressRule, _Mapping]]] = ..., certificates: _Optional[_Iterable[_Union[IngressCertificate, _Mapping]]] = ..., ports: _Optional[_Iterable[int]] = ...) -> None: ...

class IngressRule(_message.Message):
    __slots__ = ("host", "path", "exact", "service", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    path: str
    exact: bool
    service: str
    port: int
    def __init__(self, host: _Optional[str] = ..., path: _Optional[str] = ..., exact: _Optional[bool] = ..., service: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class IngressCertificate(_message.Message):
    __slots__ = ("name", "hosts", "chain_pem", "key_pem")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    name: str
    hosts: _containers.RepeatedScalarFieldContainer[str]
    chain_pem: bytes
    key_pem: bytes
    def __init__(self, name: _Optional[str] = ..., hosts: _Optional[_Iterable[str]] = ..., chain_pem: _Optional[bytes] = ..., key_pem: _Optional[bytes] = ...) -> None: ...

class NetworkCheck(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class NetworkCheckResult(_message.Message):
    __slots__ = ("request", "paths", "healthy", "failed")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    request: int
    paths: _containers.RepeatedCompositeFieldContainer[NetworkPath]
    healthy: int
    failed: int
    def __init__(self, request: _Optional[int] = ..., paths: _Optional[_Iterable[_Union[NetworkPath, _Mapping]]] = ..., healthy: _Optional[int] = ..., failed: _Optional[int] = ...) -> None: ...

class NetworkPath(_message.Message):
    __slots__ = ("to", "what", "ok", "detail")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    to: str
    what: str
    ok: bool
    detail: str
    def __init__(self, to: _Optional[str] = ..., what: _Optional[str] = ..., ok: _Optional[bool] = ..., detail: _Optional[str] = ..., **kwargs) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("cluster", "manager", "heartbeat_s", "default_registry", "managers", "credentials")
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REGISTRY_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    cluster: str
    manager: str
    heartbeat_s: float
    default_registry: str
    managers: _containers.RepeatedScalarFieldContainer[str]
    credentials: _containers.RepeatedCompositeFieldContainer[RegistryCredential]
    def __init__(self, cluster: _Optional[str] = ..., manager: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., default_registry: _Optional[str] = ..., managers: _Optional[_Iterable[str]] = ..., credentials: _Optional[_Iterable[_Union[RegistryCredential, _Mapping]]] = ...) -> None: ...

class RegistryCredential(_message.Message):
    __slots__ = ("registry", "username", "password")
    REGISTRY_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    registry: str
    username: str
    password: str
    def __init__(self, registry: _Optional[str] = ..., username: _Optional[str] = ..., password: _Optional[str] = ...) -> None: ...

class Credentials(_message.Message):
    __slots__ = ("credentials",)
    CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    credentials: _containers.RepeatedCompositeFieldContainer[RegistryCredential]
    def __init__(self, credentials: _Optional[_Iterable[_Union[RegistryCredential, _Mapping]]] = ...) -> None: ...

class RenewCertificate(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Redirect(_message.Message):
    __slots__ = ("leader_address",)
    LEADER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    leader_address: str
    def __init__(self, leader_address: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "final")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    final: bool
    def __init__(self, reason: _Optional[str] = ..., final: _Optional[bool] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("node", "address", "witness_port")
    NODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    WITNESS_PORT_FIELD_NUMBER: _ClassVar[int]
    node: str
    address: str
    witness_port: int
    def __init__(self, node: _Optional[str] = ..., address: _Optional[str] = ..., witness_port: _Optional[int] = ...) -> None: ...

class Assignments(_message.Message):
    __slots__ = ("full", "pods", "forget", "commit_sequence")
    FULL_FIELD_NUMBER: _ClassVar[int]
    PODS_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    COMMIT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    full: bool
    pods: _containers.RepeatedCompositeFieldContainer[Assignment]
    forget: _containers.RepeatedScalarFieldContainer[str]
    commit_sequence: int
    def __init__(self, full: _Optional[bool] = ..., pods: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., forget: _Optional[_Iterable[str]] = ..., commit_sequence: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("uid", "name", "namespace", "workload_kind", "workload", "workload_uid", "slot", "incarnation", "revision", "want", "template_json", "privileged")
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
    TEMPLATE_JSON_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    uid: str
    name: str
    namespace: str
    workload_kind: str
    workload: str
    workload_uid: str
    slot: int
    incarnation: int
    revision: str
    want: Want
    template_json: str
    privileged: bool
    def __init__(self, uid: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ..., workload_kind: _Optional[str] = ..., workload: _Optional[str] = ..., workload_uid: _Optional[str] = ..., slot: _Optional[int] = ..., incarnation: _Optional[int] = ..., revision: _Optional[str] = ..., want: _Optional[_Union[Want, str]] = ..., template_json: _Optional[str] = ..., privileged: _Optional[bool] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class WitnessRequest(_message.Message):
    __slots__ = ("request", "peer")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    request: int
    peer: Peer
    def __init__(self, request: _Optional[int] = ..., peer: _Optional[_Union[Peer, _Mapping]] = ...) -> None: ...

class OpenStream(_message.Message):
    __slots__ = ("stream_id", "address", "logs", "exec", "forward_port", "pod_uid")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    FORWARD_PORT_FIELD_NUMBER: _ClassVar[int]
    POD_UID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    address: str
    logs: LogOptions
    exec: ExecOptions
    forward_port: int
    pod_uid: str
    def __init__(self, stream_id: _Optional[str] = ..., address: _Optional[str] = ..., logs: _Optional[_Union[LogOptions, _Mapping]] = ..., exec: _Optional[_Union[ExecOptions, _Mapping]] = ..., forward_port: _Optional[int] = ..., pod_uid: _Optional[str] = ...) -> None: ...

class CloseStream(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class LogOptions(_message.Message):
    __slots__ = ("container", "follow", "previous", "tail", "since_ms", "timestamps")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    container: str
    follow: bool
    previous: bool
    tail: int
    since_ms: int
    timestamps: bool
    def __init__(self, container: _Optional[str] = ..., follow: _Optional[bool] = ..., previous: _Optional[bool] = ..., tail: _Optional[int] = ..., since_ms: _Optional[int] = ..., timestamps: _Optional[bool] = ...) -> None: ...

class ExecOptions(_message.Message):
    __slots__ = ("container", "command", "tty", "stdin", "rows", "columns")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    container: str
    command: _containers.RepeatedScalarFieldContainer[str]
    tty: bool
    stdin: bool
    rows: int
    columns: int
    def __init__(self, container: _Optional[str] = ..., command: _Optional[_Iterable[str]] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...

class StreamFrame(_message.Message):
    __slots__ = ("stream_id", "stdin", "stdout", "stderr", "resize", "exit_code", "error", "end")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    stdin: bytes
    stdout: bytes
    stderr: bytes
    resize: Resize
    exit_code: int
    error: str
    end: bool
    def __init__(self, stream_id: _Optional[str] = ..., stdin: _Optional[bytes] = ..., stdout: _Optional[bytes] = ..., stderr: _Optional[bytes] = ..., resize: _Optional[_Union[Resize, _Mapping]] = ..., exit_code: _Optional[int] = ..., error: _Optional[str] = ..., end: _Optional[bool] = ...) -> None: ...

class Resize(_message.Message):
    __slots__ = ("rows", "columns")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ...) -> None: ...
