"""The API's methods about traffic. What they say is in `traffic`."""

# ruff: noqa: N802 - gRPC names the methods
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from bayplan.v1 import control_pb2 as api
from bayplan.v1 import control_pb2_grpc
from manager.control_api import live, traffic
from manager.control_api.calls import Calls, Context
from manager.control_api.streams import forward_port
from manager.leader import Leadership


class TrafficMethods(control_pb2_grpc.ControlServicer):
    """Answered by the leader alone."""

    _calls: Calls

    async def ListEndpoints(
        self, request: api.ListEndpointsRequest, context: Context
    ) -> api.ListEndpointsReply:
        """Where services lead."""

        async def answer(leadership: Leadership) -> api.ListEndpointsReply:
            await live.caught_up(leadership, request.seen)
            services = await traffic.endpoints(leadership, request)
            return api.ListEndpointsReply(mark=leadership.mark(), services=services)

        return await self._calls.led(context, "ListEndpoints", request, answer)

    async def TopServices(self, request: api.TopServicesRequest, context: Context) -> api.TopServicesReply:
        """What went through the proxies."""

        async def answer(leadership: Leadership) -> api.TopServicesReply:
            await live.caught_up(leadership, request.seen)
            return api.TopServicesReply(mark=leadership.mark(), services=traffic.top(leadership, request))

        return await self._calls.led(context, "TopServices", request, answer)

    async def CheckNetwork(self, request: api.CheckNetworkRequest, context: Context) -> api.CheckNetworkReply:
        """Whether nodes reach each other."""
        return await self._calls.led(context, "CheckNetwork", request, traffic.check_network)

    async def PortForward(
        self, request_iterator: AsyncIterator[api.PortForwardInput], context: Context
    ) -> AsyncIterator[api.PortForwardOutput]:
        """A TCP connection to a pod."""
        first = await anext(aiter(request_iterator), None)
        if first is None or not first.HasField("start"):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be `start`")

        async def whole() -> AsyncIterator[api.PortForwardInput]:
            yield first
            async for message in request_iterator:
                yield message

        outputs = self._calls.led_stream(
            context, "PortForward", whole(), lambda led: forward_port(led, first.start, request_iterator)
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield output
