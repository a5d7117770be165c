"""Arguments and options that several commands share."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

import typer

from bayplan.cli import complete
from bayplan.cli.failures import CommandError
from bayplan.cli.text import clean


class Output(StrEnum):
    """How a result is printed."""

    TABLE = ""
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


_OUTPUTS = [output.value for output in Output if output.value]


def _output(value: str) -> str:
    if value not in {"", *_OUTPUTS}:
        raise typer.BadParameter(f'"{value}" is none of {", ".join(_OUTPUTS)}')
    return value


Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="The namespace.",
        show_default=True,
        autocompletion=complete.namespaces,
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")]
Format = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="|".join(_OUTPUTS),
        help="Another form than a table.",
        callback=_output,
        autocompletion=lambda incomplete: [value for value in _OUTPUTS if value.startswith(incomplete)],
    ),
]
Selector = Annotated[
    str, typer.Option("--selector", "-l", metavar="K=V,…", help="Only what has these labels.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Names only; no progress.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on and print what changes.")]
NoHeaders = Annotated[bool, typer.Option("--no-headers", help="Tables without their first line.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
Timeout = Annotated[str, typer.Option("--timeout", metavar="TIME", help="Wait no longer: 90s, 5m, 1h.")]
DEFAULT_TIMEOUT = "5m"
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", metavar="FILE|DIR|-", help="Manifests; may be given several times."),
]
# Arguments are hidden: the usage line says all of them, and a section of their own would only repeat it.
Things = Annotated[
    list[str], typer.Argument(metavar="KIND [NAME] | KIND/NAME", hidden=True, autocompletion=complete.things)
]
ThingsIfAny = Annotated[
    list[str] | None,
    typer.Argument(metavar="KIND NAME | KIND/NAME", hidden=True, autocompletion=complete.things),
]
PodName = Annotated[str, typer.Argument(metavar="POD", hidden=True, autocompletion=complete.pods)]
NodeName = Annotated[str, typer.Argument(metavar="NODE", hidden=True, autocompletion=complete.nodes)]

# A digit more than nine is no time that anybody means.
_TIME = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s?)?", re.ASCII)


def seconds(text: str) -> float:
    """`90`, `90s`, `5m`, `1h30m`, `30d` in seconds. Raises CommandError."""
    match = _TIME.fullmatch(text.strip())
    if not text.strip() or match is None:
        raise CommandError(f'"{clean(text)}" is no length of time; write 90s, 5m or 1h', exit_code=2)
    days, hours, minutes, rest = match.groups()
    return int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0)


def lifetime_ms(text: str) -> int:
    """A length of time in milliseconds, for what ends after it; 0 for nothing given. Raises CommandError."""
    if not text:
        return 0
    length_ms = int(seconds(text) * 1000)
    if length_ms <= 0:
        raise CommandError("a life of 0 s would end before it began", exit_code=2)
    return length_ms


def labels(text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping. Raises CommandError."""
    found: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not key or not equals or key.endswith("!"):
            raise CommandError(
                f'"{clean(part)}" is no label: a selector is written key=value,key=value', exit_code=2
            )
        found[key.strip()] = value.removeprefix("=").strip()
    return found


def name_of(name: str, prefix: str) -> str:
    """A node's or pod's bare name, also where it was written as `node/n1`."""
    kind, slash, rest = name.partition("/")
    return rest if slash and kind.lower() in {prefix, prefix + "s", prefix[:2]} else name
