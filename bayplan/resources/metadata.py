"""Names, labels and annotations of documents and of the pods that a template makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pydantic import Field

from bayplan.resources.annotations import wrong_in_document, wrong_in_template
from bayplan.resources.model import Part
from bayplan.resources.problems import Problem
from bayplan.resources.syntax import Annotations, Labels, Name

_BOOKKEEPING: Mapping[str, str] = dict.fromkeys(
    (
        "creationTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    ),
    "the cluster keeps its own",
)


class Metadata(Part):
    """Of a document in a namespace."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"generateName", "finalizers", "ownerReferences"})
    harmless: ClassVar[Mapping[str, str]] = _BOOKKEEPING

    name: Name
    namespace: Name = "default"
    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)


class TemplateMetadata(Part):
    """Of the pods that a template makes; their names are the workload's business."""

    not_yet: ClassVar[frozenset[str]] = Metadata.not_yet | {"name", "namespace"}
    harmless: ClassVar[Mapping[str, str]] = _BOOKKEEPING

    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        for problem in wrong_in_template(self.annotations):
            yield Problem(("annotations", *problem.loc), problem.message)


class Document(Part):
    """What a user applies: the base of every kind."""

    harmless: ClassVar[Mapping[str, str]] = {"status": "the cluster writes it"}

    api_version: str
    kind: str
    metadata: Metadata

    def problems(self) -> Iterator[Problem]:
        for problem in wrong_in_document(self.kind, self.metadata.annotations):
            yield Problem(("metadata", "annotations", *problem.loc), problem.message)

    def warnings(self) -> Iterator[str]:
        """What its author should know although nothing is wrong."""
        yield from ()

    def to_json_dict(self) -> dict[str, Any]:
        """Canonical JSON data: what equals its default is left out, but for who it is.

        Two documents mean the same if, and only if, these are equal.
        """
        data = {"apiVersion": self.api_version, "kind": self.kind, **super().to_json_dict()}
        own = data["metadata"]
        data["metadata"] = {"name": own.pop("name"), "namespace": self.metadata.namespace, **own}
        return data
