"""Calls about documents: what users want."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from bayplan.client import wire
from bayplan.client.calls import Calls
from bayplan.client.errors import InvalidDocumentError
from bayplan.client.managers import ATTEMPT_S, RepeatedNotFoundError
from bayplan.client.types import (
    Applied,
    Document,
    DocumentsChange,
    Scaled,
)
from bayplan.v1 import control_pb2 as control

# Each document is a transaction of its own, and a slow etcd takes up to 800 ms for one.
_APPLY_EXTRA_S_PER_DOCUMENT = 0.8

# A manager takes 500 documents in one request, and the transport 16 MiB.
_BATCH_DOCUMENTS_MAX = 500
_BATCH_BYTES_MAX = 8 << 20


class DocumentCalls(Calls):
    """Apply, read, watch, scale, delete."""

    async def apply(
        self, documents: Iterable[Mapping[str, Any]], *, dry_run: bool = False, expected_version: int = 0
    ) -> tuple[Applied, ...]:
        """Create or change documents, in order, each in a transaction of its own.

        Args:
            documents: in Kubernetes' shape. Without a namespace they go to "default".
            dry_run: check them only.
            expected_version: with one document: the version that it must still have; -1: it must be new;
                0: whatever is there.

        Raises:
            InvalidDocumentError: nothing was applied (of several hundred documents: nothing more).
            ConflictError: it has another version.
        """
        texts = [json.dumps(document) for document in documents]
        applied: list[Applied] = []
        for batch in _batches(texts):
            try:
                reply = await self._managers.call(
                    lambda stub: stub.Apply,
                    control.ApplyRequest(documents=batch, dry_run=dry_run, expected_version=expected_version),
                    may_repeat=dry_run or not expected_version,
                    extra_s=_APPLY_EXTRA_S_PER_DOCUMENT * len(batch),
                )
            except InvalidDocumentError as error:
                problems = tuple(
                    replace(problem, document=problem.document + len(applied)) for problem in error.problems
                )
                raise InvalidDocumentError(str(error), problems) from error
            applied += [wire.from_applied(one) for one in reply.applied]
        return tuple(applied)

    async def get(
        self, kind: str, name: str, *, namespace: str = "default", show_secrets: bool = False
    ) -> Document:
        """One document, by its name or a prefix of its name or uid that fits no other.

        Without `show_secrets` the values of a Secret are empty, and the annotation bayplan.io/hidden says so.
        Raises: NotFoundError; AccessDeniedError: secrets are shown to operators.
        """
        request = control.GetRequest(kind=kind, namespace=namespace, name=name, show_secrets=show_secrets)
        reply = await self._ask(lambda stub: stub.Get, request)
        return wire.from_document(reply.document)

    async def list(
        self,
        kind: str = "",
        *,
        namespace: str = "",
        selector: Mapping[str, str] | None = None,
        show_secrets: bool = False,
    ) -> tuple[Document, ...]:
        """Documents of a kind ("": of each) in a namespace ("": in each) with these labels.

        `show_secrets`: as `get` has it. Raises: AccessDeniedError: secrets are shown to operators.
        """
        request = control.ListRequest(
            kind=kind, namespace=namespace, selector=selector or {}, show_secrets=show_secrets
        )
        reply = await self._ask(lambda stub: stub.List, request)
        return wire.from_documents(reply.documents)

    async def watch(
        self,
        kind: str = "",
        *,
        namespace: str = "",
        selector: Mapping[str, str] | None = None,
        show_secrets: bool = False,
    ) -> AsyncGenerator[DocumentsChange, None]:
        """What there is, then each change. After a break it begins anew, with `initial` set.

        `show_secrets`: as `get` has it. Raises: AccessDeniedError: secrets are shown to operators.
        """
        request = control.ListRequest(
            kind=kind, namespace=namespace, selector=selector or {}, show_secrets=show_secrets
        )
        stream = self._watch(lambda stub: stub.Watch, request, first_within_s=ATTEMPT_S)
        async with aclosing(stream):
            async for message in stream:
                yield DocumentsChange(
                    mark=wire.from_mark(message.mark),
                    initial=message.initial,
                    documents=wire.from_documents(message.documents),
                    deleted=wire.from_documents(message.deleted),
                )

    async def delete(
        self, kind: str, name: str, *, namespace: str = "default", expected_version: int = 0
    ) -> str:
        """Begin to delete a document and, with it, its pods; returns its uid, if known. It is gone once `get` says so.

        Raises: NotFoundError; ConflictError: it has another version.
        """
        request = control.DeleteRequest(
            kind=kind, namespace=namespace, name=name, expected_version=expected_version
        )
        try:
            reply = await self._managers.call(
                lambda stub: stub.Delete, request, may_repeat=not expected_version
            )
        except RepeatedNotFoundError:
            return ""  # The first attempt did it, its answer was lost.
        return reply.uid

    async def scale(
        self,
        kind: str,
        name: str,
        replicas: int,
        *,
        namespace: str = "default",
        expected_replicas: int | None = None,
    ) -> Scaled:
        """Set how many pods a workload has.

        Raises: NotFoundError; ForbiddenStateError: it has not `expected_replicas`, or is being deleted.
        """
        request = control.ScaleRequest(
            kind=kind,
            namespace=namespace,
            name=name,
            replicas=replicas,
            expected_replicas=expected_replicas,
        )
        reply = await self._managers.call(
            lambda stub: stub.Scale, request, may_repeat=expected_replicas is None
        )
        return Scaled(before=reply.before, generation=reply.generation)


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Requests that a manager takes; an empty one too, so that it says what it thinks of that."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == _BATCH_DOCUMENTS_MAX or size + len(text) > _BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    yield batch
