"""The server's side of a WebSocket (RFC 6455) as far as an echo needs it: whole frames, and a polite end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

# RFC 6455, section 1.3.
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PAYLOAD_BYTES_MAX = 64 * 1024
GOING_AWAY = 1001
_FINAL, _MASKED = 0x80, 0x80


class Opcode(IntEnum):
    """What a frame is."""

    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class ProtocolError(ValueError):
    """The client does not speak as it must: cut the connection."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole message; pieces of one are not taken."""

    opcode: Opcode
    payload: bytes


def accept_headers(headers: Mapping[str, str]) -> dict[str, str] | None:
    """What answers a client that asks for a WebSocket; None if it does not."""
    key = headers.get("sec-websocket-key")
    if headers.get("upgrade", "").lower() != "websocket" or key is None:
        return None
    digest = hashlib.sha1(f"{key}{_GUID}".encode()).digest()
    accepted = base64.b64encode(digest).decode()
    return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accepted}


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """The next one. Raises ProtocolError, and IncompleteReadError when the connection ends."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2))
    elif length == 127:
        length = int.from_bytes(await reader.readexactly(8))
    if not second & _MASKED or not first & _FINAL or length > PAYLOAD_BYTES_MAX:
        raise ProtocolError("a frame is in pieces, not masked, or too long")
    mask = await reader.readexactly(4)
    payload = await reader.readexactly(length)
    try:
        opcode = Opcode(first & 0x0F)
    except ValueError as error:
        raise ProtocolError("a frame is of no known kind") from error
    return Frame(opcode, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)))


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """As a server sends it: not masked."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = bytes([126]) + size.to_bytes(2)
    else:
        length = bytes([127]) + size.to_bytes(8)
    return bytes([_FINAL | opcode]) + length + payload


def goodbye(code: int = GOING_AWAY) -> bytes:
    """The frame that ends a WebSocket by agreement."""
    return frame(Opcode.CLOSE, code.to_bytes(2) + b"this pod is leaving")
