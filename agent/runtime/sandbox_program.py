"""The program of a pod's sandbox: it does nothing until it is killed.

A node that can pull nothing must be able to run pods of several containers, so the agent brings the program along:
a Linux executable of some hundred bytes, without a library, for each processor. It is kept as its instructions,
which a reader can check against the assembler beside them: wait for a signal, for ever.

Signals that can be ignored are: it is process 1 and handles none. So its container is stopped by SIGKILL. It has
no children, as containers of a pod do not share their processes: there is nothing to reap.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile

PATH = "/wait"

_X86_64 = """
    b822000000    mov   $34, %eax         # wait: pause
    0f05          syscall
    ebf7          jmp   wait
"""

# As it lies in memory: the lowest byte of each instruction first.
_AARCH64 = """
    000080d2      mov   x0, #0            // wait: ppoll of nothing, without a limit
    010080d2      mov   x1, #0
    020080d2      mov   x2, #0
    030080d2      mov   x3, #0
    280980d2      mov   x8, #73
    010000d4      svc   #0
    faffff17      b     wait
"""

# By the engine's word for the processor: ELF's number of it, and the instructions.
_MACHINES = {"x86_64": (62, _X86_64), "aarch64": (183, _AARCH64)}

# Where programs without a need for another place begin; a multiple of every page size (arm64 has up to 64 KiB).
_BASE = 0x400000
_PAGE = 0x10000
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")


def has_program(architecture: str) -> bool:
    """Whether there is one for this processor, in the engine's words."""
    return architecture in _MACHINES


def executable(architecture: str) -> bytes:
    """The program as an ELF file: one header, one segment, which is the whole file."""
    machine, listing = _MACHINES[architecture]
    code = bytes.fromhex("".join(line.split()[0] for line in listing.strip().splitlines()))
    begins = _ELF_HEADER.size + _SEGMENT.size
    size = begins + len(code)
    header = _ELF_HEADER.pack(
        b"\x7fELF" + bytes((2, 1, 1)),  # 64 bits, lowest byte first, version 1; filled up with zeros.
        2,  # An executable at a fixed place.
        machine,
        1,
        _BASE + begins,  # The first instruction.
        _ELF_HEADER.size,  # Where segments are described: behind this.
        0,
        0,
        _ELF_HEADER.size,
        _SEGMENT.size,
        1,
        0,
        0,
        0,
    )
    # Type 1: to be loaded; flags 5: to be read and executed.
    return header + _SEGMENT.pack(1, 5, 0, _BASE, _BASE, size, size, _PAGE) + code


def archive(architecture: str) -> bytes:
    """A tar file with nothing but the program: an image's whole content."""
    program = executable(architecture)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo(PATH.removeprefix("/"))
        entry.size, entry.mode = len(program), 0o555
        tar.addfile(entry, io.BytesIO(program))
    return data.getvalue()


def image_name(architecture: str) -> tuple[str, str]:
    """(repository, tag) of the image: another program has another tag."""
    return "bayplan-sandbox", hashlib.sha256(executable(architecture)).hexdigest()[:12]
