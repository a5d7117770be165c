"""Settings of the daemons: a flag, a variable, a key of a file, a default, the first that is given.

Every setting can be given in each of these ways, so that a unit file, a container and an
operator at the prompt use what suits them, and `--print-config` says which one won. What
is mistyped ends the program with words and exit code 2: a daemon that runs on with a
setting other than the one that was meant is found out too late.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import NoReturn

import bayplan

FLAG = "flag"
DEFAULT = "default"
HIDDEN = "(hidden)"

_PORT_MAX = 65535
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
_NUMBER = re.compile(r"[0-9]{1,9}")
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_TYPES = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
    datetime: "a time",
    date: "a date",
    time: "a time",
}


class SettingsError(ValueError):
    """A setting cannot be used: the message says which, where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One thing that the operator may set. It is text unless one of `is_flag`, `is_number`, `is_repeated` holds."""

    name: str  # "data-dir": --data-dir, BAYPLAN_DATA_DIR, and data-dir in the file.
    help: str
    default: str | int | None = ""  # None: it must be given. Of no meaning for flags and what is repeated.
    form: str = ""  # How a value looks, for the help text: KEY=VALUE.
    is_secret: bool = False
    is_repeated: bool = False  # Any number of texts. Those of all sources together, the strongest last.
    is_flag: bool = False
    is_number: bool = False  # A whole number, not negative.

    def __post_init__(self) -> None:
        assert self.is_repeated + self.is_flag + self.is_number <= 1
        assert isinstance(self.default, int) == self.is_number or self.default is None

    @property
    def key(self) -> str:
        """Its word in the file: a repeated setting stands there once, so it is named as many."""
        if not self.is_repeated:
            return self.name
        return f"{self.name}es" if self.name.endswith("s") else f"{self.name}s"

    @property
    def variable(self) -> str:
        return f"BAYPLAN_{self.key.replace('-', '_').upper()}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value and where it came from: `flag`, a variable's name, `file:line` or `default`."""

    value: str | int
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What `read_settings` found. Names are those of the settings; another one is a KeyError."""

    _parser: argparse.ArgumentParser = field(repr=False)
    _given: Mapping[str, Sequence[Given]] = field(repr=False)  # Secrets are among them.

    def text(self, name: str) -> str:
        value = self._given[name][-1].value
        assert isinstance(value, str)
        return value

    def number(self, name: str) -> int:
        value = self._given[name][-1].value
        assert isinstance(value, int)
        return value

    def flag(self, name: str) -> bool:
        return bool(self.number(name))

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a repeated setting, the weakest source first."""
        return tuple(str(given.value) for given in self._given[name])

    def source(self, name: str) -> str:
        """Where the value came from; of a repeated setting every source, with commas."""
        return ", ".join(dict.fromkeys(given.source for given in self._given[name])) or DEFAULT

    def whence(self, name: str) -> str:
        """The end of a message about `--name`: where to look if it was not on the command line."""
        source = self.source(name)
        return "" if source in (FLAG, DEFAULT) else f" (from {source})"

    def fail(self, problem: str) -> NoReturn:
        """End the program as for a wrong flag: words on standard error, exit code 2."""
        self._parser.error(problem)


def read_settings(
    program: str,
    description: str,
    settings: Sequence[Setting],
    *,
    argv: Sequence[str],
    environ: Mapping[str, str],
    default_file: Path,
) -> Settings:
    """Read them from `argv`, else `environ`, else the file, else the defaults.

    Ends the program with words and exit code 2 where something is wrong, and with 0 after
    --help, --version and --print-config.
    """
    parser = _parser(program, description, settings, default_file)
    arguments = vars(parser.parse_args(argv))
    # An empty variable counts as not set: Compose and systemd pass on as empty what is not there.
    environ = {variable: text for variable, text in environ.items() if text}
    named = arguments["config"] or environ.get("BAYPLAN_CONFIG_FILE")
    path = Path(named) if named else default_file
    try:
        document = _read_file(path, is_needed=named is not None)
        in_file = _from_file(document, path, settings) if document is not None else {}
        given = {
            setting.name: _strongest(
                setting,
                in_file.get(setting.name, []),
                _from_environment(setting, environ),
                _from_flags(setting, arguments[setting.name]),
            )
            for setting in settings
        }
    except SettingsError as error:
        parser.error(str(error))
    if arguments["print_config"]:
        sys.stdout.write(f"# {path}{'' if document is not None else ' (does not exist)'}\n")
        sys.stdout.writelines(_printed(setting, given[setting.name]) for setting in settings)
    missing = [setting for setting in settings if _is_missing(setting, given[setting.name])]
    if missing:
        names = ", ".join(f"--{setting.name} ({setting.variable})" for setting in missing)
        parser.error(f"missing: {names}; give it here, as a variable or in {path}")
    if arguments["print_config"]:
        parser.exit(0)
    return Settings(parser, given)


def is_loopback(host: str) -> bool:
    """Whether `host` surely is this host itself: 127.0.0.0/8, ::1 (in brackets or not), or localhost."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"


def metrics_address(given: Settings) -> str:
    """Of `--metrics`: `host:port`, or empty. Raises ValueError in words."""
    text = given.text("metrics")
    host, _, port = text.rpartition(":")
    if text and not (host and port.isdecimal() and 0 < int(port) <= _PORT_MAX):
        raise ValueError(f"--metrics {text!r} is not host:port{given.whence('metrics')}")
    return text


def _parser(
    program: str, description: str, settings: Sequence[Setting], default_file: Path
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Each option can be given as the variable that stands behind it too, or as a key of the file "
        f"{default_file}: --data-dir is BAYPLAN_DATA_DIR, or data-dir in the file. "
        "A flag is stronger than a variable, a variable stronger than the file.",
    )
    parser.add_argument("--version", action="version", version=f"{program} {bayplan.__version__}")
    parser.add_argument("--config", metavar="FILE", help="file with settings, as TOML (BAYPLAN_CONFIG_FILE)")
    parser.add_argument(
        "--print-config", action="store_true", help="show every setting and where it came from, and end"
    )
    for setting in settings:
        notes = [setting.variable]
        if setting.is_repeated:
            notes = [f"may be repeated; {setting.variable}: separated by commas"]
        elif setting.default is None:
            notes.append("must be given")
        elif setting.default != "" and not setting.is_flag:
            notes.append(f"default: {setting.default}")
        text = f"{setting.help} ({'; '.join(notes)})".replace("%", "%%")
        if setting.is_flag:
            parser.add_argument(
                f"--{setting.name}", dest=setting.name, action="append_const", const="true", help=text
            )
        else:
            metavar = setting.form or setting.name.replace("-", "_").upper()
            parser.add_argument(
                f"--{setting.name}", dest=setting.name, action="append", metavar=metavar, help=text
            )
    return parser


def _strongest(setting: Setting, *sources: Sequence[Given]) -> Sequence[Given]:
    """`sources` from the weakest to the strongest."""
    everything = [given for source in sources for given in source]
    if setting.is_repeated:
        return everything
    default: str | int = setting.default if setting.default is not None else ""
    return everything[-1:] or [Given(False if setting.is_flag else default, DEFAULT)]


def _is_missing(setting: Setting, given: Sequence[Given]) -> bool:
    return setting.default is None and given[-1].value == ""


def _from_flags(setting: Setting, texts: Sequence[str] | None) -> Sequence[Given]:
    return [Given(_converted(setting, text, f"--{setting.name}"), FLAG) for text in texts or ()]


def _from_environment(setting: Setting, environ: Mapping[str, str]) -> Sequence[Given]:
    text = environ.get(setting.variable, "")
    if setting.is_repeated:
        return [Given(part.strip(), setting.variable) for part in text.split(",") if part.strip()]
    return [Given(_converted(setting, text, setting.variable), setting.variable)] if text else []


def _converted(setting: Setting, text: str, whose: str) -> str | int:
    shown = HIDDEN if setting.is_secret else repr(text)
    if setting.is_flag:
        if text not in _BOOLEANS:
            raise SettingsError(f"{whose} is {shown}, not one of {', '.join(_BOOLEANS)}")
        return _BOOLEANS[text]
    if setting.is_number:
        if not _NUMBER.fullmatch(text):
            raise SettingsError(f"{whose} is {shown}, not a whole number")
        return int(text)
    return text


def _read_file(path: Path, *, is_needed: bool) -> str | None:
    try:
        return path.read_bytes().decode().replace("\r\n", "\n")
    except (FileNotFoundError, NotADirectoryError) as error:
        if is_needed:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
        return None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text") from error


def _from_file(document: str, path: Path, settings: Sequence[Setting]) -> dict[str, Sequence[Given]]:
    try:
        values = tomllib.loads(document)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(_syntax_problem(str(error), document, path)) from error
    known = {setting.key: setting for setting in settings}
    found = {}
    for key, value in values.items():
        place = _place(key, document, path)
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(each, dict) for each in value)
        ):
            raise SettingsError(f"{place}: {_quoted(key)} is a table; every key stands at the top level")
        if key not in known:
            raise SettingsError(f"{place}: unknown key {_quoted(key)}{_did_you_mean(key, known)}")
        found[known[key].name] = _from_toml(known[key], value, place)
    return found


def _from_toml(setting: Setting, value: object, place: str) -> Sequence[Given]:
    if setting.is_repeated:
        if not isinstance(value, list):
            hint = f": write {setting.key} = [{_quoted(value)}]" if isinstance(value, str) else ""
            raise SettingsError(f"{place}: {setting.key} must be a list of texts, not {_type(value)}{hint}")
        for each in value:
            if not isinstance(each, str):
                raise SettingsError(
                    f"{place}: {setting.key} must be a list of texts, but holds {_type(each)}"
                )
        return [Given(each, place) for each in value]
    wanted = bool if setting.is_flag else int if setting.is_number else str
    # Not isinstance: to Python true is a whole number.
    if type(value) is not wanted:
        problem = f"{place}: {setting.key} must be {_TYPES[wanted]}, not {_type(value)}"
        if wanted is str and type(value) in (int, float) and not setting.is_secret:
            problem += f": write {setting.key} = {_quoted(str(value))}"
        raise SettingsError(problem)
    assert isinstance(value, (str, int))
    if setting.is_number and int(value) < 0:
        raise SettingsError(f"{place}: {setting.key} must not be negative")
    return [Given(value, place)]


def _syntax_problem(message: str, document: str, path: Path) -> str:
    """tomllib's words with the place in front, where editors and terminals look for it."""
    match = _PLACE.search(message)
    line = match["line"] if match and match["line"] else str(max(1, len(document.splitlines())))
    place = f"{path}:{line}" + (f":{match['column']}" if match and match["column"] else "")
    return f"{place}: is not TOML: {_PLACE.sub('', message)}"


def _place(key: str, document: str, path: Path) -> str:
    """`file:line` of a top-level key or table, which tomllib does not tell; the file where it is written oddly."""
    words = "|".join(re.escape(form) for form in (key, f'"{key}"', f"'{key}'"))
    statement = re.compile(rf"^[ \t]*(?:\[\[?[ \t]*)?(?:{words})[ \t]*[=.\]]", re.MULTILINE)
    for match in statement.finditer(document):
        before = document[: match.start()]
        try:
            tomllib.loads(before)
        except tomllib.TOMLDecodeError:
            continue  # The match is inside a text or list of several lines.
        line = before.count("\n") + 1
        return f"{path}:{line}"
    return str(path)


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1)
    return f", did you mean {_quoted(near[0])}?" if near else f"; known are {', '.join(known)}"


def _type(value: object) -> str:
    return _TYPES[type(value)]


def _printed(setting: Setting, given: Sequence[Given]) -> str:
    """One setting as TOML; of a repeated one each value has its line and its source."""
    if setting.is_repeated:
        if not given:
            return f"{setting.key} = []  # {DEFAULT}\n"
        rows = "".join(f"    {_shown(setting, each)},  # {each.source}\n" for each in given)
        return f"{setting.key} = [\n{rows}]\n"
    if _is_missing(setting, given):
        return f'{setting.key} = ""  # missing\n'
    return f"{setting.key} = {_shown(setting, given[-1])}  # {given[-1].source}\n"


def _shown(setting: Setting, given: Given) -> str:
    value = HIDDEN if setting.is_secret and given.value else given.value
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """As TOML writes it: JSON's text, but DEL is escaped too, and what is no Unicode cannot stand there."""
    return json.dumps(text.encode(errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")
