"""A TCP connection to a port of a pod, through a manager and the pod's agent."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from bayplan.client.pod_stream import Begin, PodStream
from bayplan.v1 import control_pb2


class ForwardedConnection(PodStream):
    """Use it as a context manager: leaving it ends the connection. One reader, any number of writers."""

    def __init__(self, begin: Begin, start: control_pb2.PortForwardStart) -> None:
        super().__init__(begin, control_pb2.PortForwardInput(start=start), what="pod")

    async def data(self) -> AsyncGenerator[bytes, None]:
        """What the pod sends, until it ends. Raises the errors of this package, e.g. when nobody listens there."""
        async with aclosing(self._messages()) as messages:
            async for message in messages:
                yield message.data

    async def write(self, data: bytes) -> None:
        """Once the connection has ended it goes nowhere."""
        await self._write(control_pb2.PortForwardInput(data=data))

    async def end_writing(self) -> None:
        """Nothing more will be sent; the pod may still answer."""
        await self._write(control_pb2.PortForwardInput(end=True))
