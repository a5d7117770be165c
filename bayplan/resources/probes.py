"""Probes and lifecycle hooks of containers: what an agent asks of them, and when.

Kubernetes' fields, defaults and rules. Agents read the same names from the template's JSON, where defaults
are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from bayplan.resources.addresses import HeaderName, HeaderValue, ProbedHost, RequestPath
from bayplan.resources.model import Part
from bayplan.resources.problems import Problem
from bayplan.resources.syntax import Integer, PortOrName, Text

_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
# A week, which is what agents take; Kubernetes has no limit, and nobody waits so long.
_SECONDS_MAX = 7 * 86_400

Seconds = Annotated[Integer, Field(ge=0, le=_SECONDS_MAX)]
Times = Annotated[Integer, Field(ge=0, le=2**31 - 1)]  # As in Kubernetes, whose fields have 32 bits.


def _zero_is(default: int) -> AfterValidator:
    """In Kubernetes a zero here is a field that was not set."""
    return AfterValidator(lambda value: value or default)


class ExecAction(Part):
    """A command in the container. It has succeeded when it ends with 0."""

    command: Annotated[tuple[Text, ...], Field(min_length=1)]


class HttpHeader(Part):
    """A line of a request's head."""

    name: HeaderName
    value: HeaderValue


class HttpGetAction(Part):
    """A request. An answer of 200 to 399 is success."""

    port: PortOrName
    path: RequestPath = "/"
    host: ProbedHost | None = None  # None: the pod's address.
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(Part):
    """A connection that comes about is success."""

    port: PortOrName
    host: ProbedHost | None = None  # None: the pod's address.


class GrpcAction(Part):
    """grpc.health.v1.Health/Check; SERVING is success."""

    port: Annotated[Integer, Field(ge=1, le=65535)]
    service: Text = ""


class SleepAction(Part):
    """Nothing, for a while."""

    seconds: Seconds


class Probe(Part):
    """What is tried again and again, and how many tries decide."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: Seconds = 0
    timeout_seconds: Annotated[Seconds, _zero_is(1)] = 1
    period_seconds: Annotated[Seconds, _zero_is(10)] = 10
    success_threshold: Annotated[Times, _zero_is(1)] = 1
    failure_threshold: Annotated[Times, _zero_is(3)] = 3
    # None: the pod's. After a failed startup or liveness probe.
    termination_grace_period_seconds: Annotated[Integer, Field(ge=1, le=3600)] | None = None

    @property
    def port(self) -> int | str | None:
        """Where it asks; None where it runs a command."""
        action = self.http_get or self.tcp_socket or self.grpc
        return None if action is None else action.port

    @property
    def action(self) -> str:
        """The field that says what is tried."""
        return next(name for name, each in self._actions() if each is not None)

    def _actions(self) -> tuple[tuple[str, object], ...]:
        return tuple(zip(_HANDLERS, (self.exec, self.http_get, self.tcp_socket, self.grpc), strict=True))

    def problems(self) -> Iterator[Problem]:
        if sum(each is not None for _, each in self._actions()) != 1:
            yield Problem((), f"needs exactly one of {', '.join(_HANDLERS)}")


class RestartingProbe(Probe):
    """Of startup or liveness: a failure restarts the container, so that one success is enough."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.success_threshold != 1:
            yield Problem(("successThreshold",), "must be 1: only a readiness probe counts successes")


class ReadinessProbe(Probe):
    """A failure keeps traffic away."""

    def problems(self) -> Iterator[Problem]:
        yield from super().problems()
        if self.termination_grace_period_seconds is not None:
            words = "must be left out: a readiness probe ends nothing"
            yield Problem(("terminationGracePeriodSeconds",), words)


class LifecycleHandler(Part):
    """What is done once, at the begin or the end of a container."""

    refused: ClassVar[Mapping[str, str]] = {
        "tcpSocket": "not supported, and Kubernetes never did it: write exec, httpGet or sleep"
    }

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None

    @property
    def port(self) -> int | str | None:
        """Where it asks; None where it asks nobody."""
        return None if self.http_get is None else self.http_get.port

    def problems(self) -> Iterator[Problem]:
        if sum(each is not None for each in (self.exec, self.http_get, self.sleep)) != 1:
            yield Problem((), "needs exactly one of exec, httpGet, sleep")


class Lifecycle(Part):
    """Hooks of a container."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"stopSignal"})

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
