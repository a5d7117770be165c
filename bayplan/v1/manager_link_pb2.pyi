from bayplan.v1 import agent_link_pb2 as _agent_link_pb2
from bayplan.v1 import callers_pb2 as _callers_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FollowerMessage(_message.Message):
    __slots__ = ("manager",)
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    manager: str
    def __init__(self, manager: _Optional[str] = ...) -> None: ...

class LeaderMessage(_message.Message):
    __slots__ = ("epoch", "alive", "goodbye", "not_leader")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    NOT_LEADER_FIELD_NUMBER: _ClassVar[int]
    epoch: _agent_link_pb2.Epoch
    alive: bool
    goodbye: _agent_link_pb2.Goodbye
    not_leader: str
    def __init__(self, epoch: _Optional[_Union[_agent_link_pb2.Epoch, _Mapping]] = ..., alive: _Optional[bool] = ..., goodbye: _Optional[_Union[_agent_link_pb2.Goodbye, _Mapping]] = ..., not_leader: _Optional[str] = ...) -> None: ...

class HearLeaderRequest(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: _agent_link_pb2.Epoch
    def __init__(self, epoch: _Optional[_Union[_agent_link_pb2.Epoch, _Mapping]] = ...) -> None: ...

class HearLeaderReply(_message.Message):
    __slots__ = ("heard",)
    HEARD_FIELD_NUMBER: _ClassVar[int]
    heard: bool
    def __init__(self, heard: _Optional[bool] = ...) -> None: ...
