"""A program with settings of every sort, and what it says when it cannot read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bayplan.settings import Setting, Settings, read_settings

SETTINGS = (
    Setting(name="data-dir", help="where things are kept", default="/var/lib/thing"),
    Setting(name="port", help="where it listens", default=7400, is_number=True),
    Setting(name="label", help="a label", form="KEY=VALUE", is_repeated=True),
    Setting(name="is-quick", help="100 % quick", is_flag=True),
    Setting(name="token", help="lets it in", is_secret=True),
)
NOWHERE = Path("/nowhere/thing.toml")
ALLOWED = "without encryption only loopback addresses are allowed, such as 127.0.0.1"


def read(
    *argv: str,
    environ: Mapping[str, str] | None = None,
    file: Path = NOWHERE,
    settings: tuple[Setting, ...] = SETTINGS,
) -> Settings:
    return read_settings("thing", "A thing.", settings, argv=argv, environ=environ or {}, default_file=file)


class Ended:
    """A program that ended while it read its settings."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code: object = None
        self.out = ""
        self.error = ""

    def read(self, *argv: str, environ: Mapping[str, str] | None = None, file: Path = NOWHERE) -> Ended:
        with pytest.raises(SystemExit) as end:
            read(*argv, environ=environ, file=file)
        return self.saw(end.value)

    def saw(self, end: SystemExit) -> Ended:
        self.code = end.code
        self.out, said = self._capsys.readouterr()
        self.error = said.rpartition("error: ")[2].rstrip("\n")
        return self
