"""The Python stubs of proto/: generate them, or say whether the committed ones are up to date.

python -m deploy.stubs [--check]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from deploy.shell import ROOT, StepError, ends, run, say

PACKAGE = Path("bayplan/v1")


def generate(target: Path) -> None:
    """Write the stubs of every .proto below `target`."""
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))
    options = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    # protoc finds its plug-in for mypy beside the interpreter.
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    run([
        sys.executable, "-m", "grpc_tools.protoc", "-Iproto", f"--plugin=protoc-gen-mypy_grpc={plugin}",
        *options, *protos,
    ])  # fmt: skip


def check() -> None:
    """Raise StepError with the names of the stubs that generating them again would change."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        made = {path.name: path.read_bytes() for path in (fresh / PACKAGE).iterdir() if path.is_file()}
        kept = {path.name: path.read_bytes() for path in (ROOT / PACKAGE).glob("*_pb2*")}
    stale = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    if stale:
        raise StepError(f"not what proto/ says: {' '.join(stale)}. Run `make proto`")
    say("Stubs are up to date")


if __name__ == "__main__":
    ends(check if "--check" in sys.argv[1:] else lambda: generate(ROOT))
