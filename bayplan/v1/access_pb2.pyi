from bayplan.v1 import callers_pb2 as _callers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JoinRequest(_message.Message):
    __slots__ = ("certificate_request", "name", "token", "expired")
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    name: str
    token: TokenProof
    expired: ExpiredProof
    def __init__(self, certificate_request: _Optional[bytes] = ..., name: _Optional[str] = ..., token: _Optional[_Union[TokenProof, _Mapping]] = ..., expired: _Optional[_Union[ExpiredProof, _Mapping]] = ...) -> None: ...

class TokenProof(_message.Message):
    __slots__ = ("id", "secret")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    id: str
    secret: str
    def __init__(self, id: _Optional[str] = ..., secret: _Optional[str] = ...) -> None: ...

class ExpiredProof(_message.Message):
    __slots__ = ("certificate", "signature")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    signature: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("certificates", "roots", "cluster", "managers", "identity", "role", "cluster_key", "cluster_key_id")
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_KEY_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    certificates: str
    roots: str
    cluster: str
    managers: _containers.RepeatedScalarFieldContainer[str]
    identity: str
    role: _callers_pb2.Role
    cluster_key: bytes
    cluster_key_id: str
    def __init__(self, certificates: _Optional[str] = ..., roots: _Optional[str] = ..., cluster: _Optional[str] = ..., managers: _Optional[_Iterable[str]] = ..., identity: _Optional[str] = ..., role: _Optional[_Union[_callers_pb2.Role, str]] = ..., cluster_key: _Optional[bytes] = ..., cluster_key_id: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIReply(_message.Message):
    __slots__ = ("identity", "role", "cluster", "not_after_ms", "access_ends_ms")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_ENDS_MS_FIELD_NUMBER: _ClassVar[int]
    identity: str
    role: _callers_pb2.Role
    cluster: str
    not_after_ms: int
    access_ends_ms: int
    def __init__(self, identity: _Optional[str] = ..., role: _Optional[_Union[_callers_pb2.Role, str]] = ..., cluster: _Optional[str] = ..., not_after_ms: _Optional[int] = ..., access_ends_ms: _Optional[int] = ...) -> None: ...

class CanIRequest(_message.Message):
    __slots__ = ("method",)
    METHOD_FIELD_NUMBER: _ClassVar[int]
    method: str
    def __init__(self, method: _Optional[str] = ...) -> None: ...

class CanIReply(_message.Message):
    __slots__ = ("allowed", "why")
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    allowed: bool
    why: str
    def __init__(self, allowed: _Optional[bool] = ..., why: _Optional[str] = ...) -> None: ...

class CreateJoinTokenRequest(_message.Message):
    __slots__ = ("kind", "ttl_ms", "uses")
    KIND_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    ttl_ms: int
    uses: int
    def __init__(self, kind: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., uses: _Optional[int] = ...) -> None: ...

class CreateJoinTokenReply(_message.Message):
    __slots__ = ("token", "about", "managers")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    MANAGERS_FIELD_NUMBER: _ClassVar[int]
    token: str
    about: JoinToken
    managers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, token: _Optional[str] = ..., about: _Optional[_Union[JoinToken, _Mapping]] = ..., managers: _Optional[_Iterable[str]] = ...) -> None: ...

class JoinToken(_message.Message):
    __slots__ = ("id", "kind", "name", "expires_ms", "uses_left", "made_by", "created_ms", "revoked")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    USES_LEFT_FIELD_NUMBER: _ClassVar[int]
    MADE_BY_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    name: str
    expires_ms: int
    uses_left: int
    made_by: str
    created_ms: int
    revoked: bool
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., expires_ms: _Optional[int] = ..., uses_left: _Optional[int] = ..., made_by: _Optional[str] = ..., created_ms: _Optional[int] = ..., revoked: _Optional[bool] = ...) -> None: ...

class ListJoinTokensRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJoinTokensReply(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _containers.RepeatedCompositeFieldContainer[JoinToken]
    def __init__(self, tokens: _Optional[_Iterable[_Union[JoinToken, _Mapping]]] = ...) -> None: ...

class RevokeJoinTokenRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class RevokeJoinTokenReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateUserRequest(_message.Message):
    __slots__ = ("name", "role", "ttl_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: _callers_pb2.Role
    ttl_ms: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[_Union[_callers_pb2.Role, str]] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class ListIdentitiesRequest(_message.Message):
    __slots__ = ("kind",)
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    def __init__(self, kind: _Optional[str] = ...) -> None: ...

class IdentityFacts(_message.Message):
    __slots__ = ("kind", "name", "role", "revoked", "created_ms", "access_ends_ms", "not_after_ms", "issuer")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_ENDS_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    role: _callers_pb2.Role
    revoked: bool
    created_ms: int
    access_ends_ms: int
    not_after_ms: int
    issuer: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[_Union[_callers_pb2.Role, str]] = ..., revoked: _Optional[bool] = ..., created_ms: _Optional[int] = ..., access_ends_ms: _Optional[int] = ..., not_after_ms: _Optional[int] = ..., issuer: _Optional[str] = ...) -> None: ...

class ListIdentitiesReply(_message.Message):
    __slots__ = ("identities",)
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    identities: _containers.RepeatedCompositeFieldContainer[IdentityFacts]
    def __init__(self, identities: _Optional[_Iterable[_Union[IdentityFacts, _Mapping]]] = ...) -> None: ...

class RevokeIdentityRequest(_message.Message):
    __slots__ = ("kind", "name")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    kind: str
    name: str
    def __init__(self, kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class RevokeIdentityReply(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class ShowCaRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShowCaReply(_message.Message):
    __slots__ = ("roots", "waiting")
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    roots: _containers.RepeatedCompositeFieldContainer[Root]
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, roots: _Optional[_Iterable[_Union[Root, _Mapping]]] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

class Root(_message.Message):
    __slots__ = ("digest", "not_after_ms", "since_ms")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    not_after_ms: int
    since_ms: int
    def __init__(self, digest: _Optional[str] = ..., not_after_ms: _Optional[int] = ..., since_ms: _Optional[int] = ...) -> None: ...

class RotateCaRequest(_message.Message):
    __slots__ = ("finish", "stolen")
    FINISH_FIELD_NUMBER: _ClassVar[int]
    STOLEN_FIELD_NUMBER: _ClassVar[int]
    finish: bool
    stolen: bool
    def __init__(self, finish: _Optional[bool] = ..., stolen: _Optional[bool] = ...) -> None: ...

class RotateKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RotateKeysReply(_message.Message):
    __slots__ = ("cluster_key_id", "rewritten")
    CLUSTER_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REWRITTEN_FIELD_NUMBER: _ClassVar[int]
    cluster_key_id: str
    rewritten: int
    def __init__(self, cluster_key_id: _Optional[str] = ..., rewritten: _Optional[int] = ...) -> None: ...

class TakeClusterKeyRequest(_message.Message):
    __slots__ = ("id", "key")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    key: bytes
    def __init__(self, id: _Optional[str] = ..., key: _Optional[bytes] = ...) -> None: ...

class TakeClusterKeyReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("since_ms", "limit", "denied", "who")
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    DENIED_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    since_ms: int
    limit: int
    denied: bool
    who: str
    def __init__(self, since_ms: _Optional[int] = ..., limit: _Optional[int] = ..., denied: _Optional[bool] = ..., who: _Optional[str] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("at_ms", "manager", "who", "via", "address", "method", "target", "allowed", "why", "outcome", "count")
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    VIA_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    at_ms: int
    manager: str
    who: str
    via: str
    address: str
    method: str
    target: str
    allowed: bool
    why: str
    outcome: str
    count: int
    def __init__(self, at_ms: _Optional[int] = ..., manager: _Optional[str] = ..., who: _Optional[str] = ..., via: _Optional[str] = ..., address: _Optional[str] = ..., method: _Optional[str] = ..., target: _Optional[str] = ..., allowed: _Optional[bool] = ..., why: _Optional[str] = ..., outcome: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class ListAuditReply(_message.Message):
    __slots__ = ("entries", "unreachable")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    UNREACHABLE_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    unreachable: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ..., unreachable: _Optional[_Iterable[str]] = ...) -> None: ...
