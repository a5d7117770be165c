"""Checks and hooks over sockets of this host and through its engine: the real `Prober`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import assert_never

from agent.probes.command import Commands
from agent.probes.deadline import within
from agent.probes.grpc_check import check_grpc
from agent.probes.http import HttpProber, words_of
from agent.probes.model import Check, Exec, GrpcCheck, Hook, HttpGet, Sleep, TcpConnect
from agent.probes.names import Names
from agent.probes.port import NO_ADDRESS, SUCCESS, Outcome
from agent.runtime.port import Container, Runtime


class HostProber:
    """One per agent."""

    def __init__(self, runtime: Runtime) -> None:
        self._names = Names()
        self._http = HttpProber(self._names)
        self._commands = Commands(runtime)

    async def probe(self, container: Container, check: Check, *, timeout_s: float) -> Outcome:
        if isinstance(check, Exec):
            return await self._commands.run(container.id, check.command, timeout_s=timeout_s)
        if not container.address:
            return Outcome.unknown(NO_ADDRESS)
        match check:
            case HttpGet():
                attempt = self._http.get(container.address, check)
            case TcpConnect():
                attempt = self._connect(container.address, check)
            case GrpcCheck():
                attempt = check_grpc(container.address, check, timeout_s=timeout_s)
            case _ as never:
                assert_never(never)
        return await within(timeout_s, attempt, place=check.place)

    async def run_hook(self, container: Container, hook: Hook, *, timeout_s: float) -> Outcome:
        match hook:
            case Exec():
                return await self._commands.run(container.id, hook.command, timeout_s=timeout_s)
            case HttpGet():
                if not container.address:
                    return Outcome.failure(NO_ADDRESS)
                attempt = self._http.get(container.address, hook, any_answer=True)
                return await within(timeout_s, attempt, place=hook.place)
            case Sleep():
                await asyncio.sleep(min(hook.duration_s, timeout_s))
                return SUCCESS
            case _ as never:
                assert_never(never)

    async def aclose(self) -> None:
        await self._http.aclose()
        await self._names.close()

    async def _connect(self, address: str, check: TcpConnect) -> Outcome:
        try:
            writer = await _first_of(await self._names.addresses(check.host or address), check.port)
        except OSError as error:
            return Outcome.failure(f"{words_of(error)} at {check.place}")
        # Not close(): with what the other side may have sent already unread, that would wait for nobody's good.
        writer.transport.abort()
        return SUCCESS


async def _first_of(addresses: list[str], port: int) -> asyncio.StreamWriter:
    """Connected to the first that answers. Raises OSError, of the last one."""
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return (await asyncio.open_connection(address, port))[1]
    return (await asyncio.open_connection(last, port))[1]
