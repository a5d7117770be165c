"""Workloads: documents that make pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from bayplan.resources.metadata import Document, Metadata
from bayplan.resources.model import Part
from bayplan.resources.pods import PodTemplate
from bayplan.resources.problems import Problem, quote
from bayplan.resources.syntax import Integer, Labels

# Above this a plan would not fit the memory that managers are sized for; 10^9 is a typing error.
REPLICAS_MAX = 100_000


class Selector(Part):
    """Which pods belong to a workload."""

    not_yet: ClassVar[frozenset[str]] = frozenset({"matchExpressions"})

    match_labels: Annotated[Labels, Field(min_length=1)]


class DeploymentSpec(Part):
    """What a user wants of a Deployment."""

    not_yet: ClassVar[frozenset[str]] = frozenset(
        {"minReadySeconds", "paused", "progressDeadlineSeconds", "revisionHistoryLimit", "strategy"}
    )

    replicas: Annotated[Integer, Field(ge=0, le=REPLICAS_MAX)] = 1
    selector: Selector
    template: PodTemplate

    def problems(self) -> Iterator[Problem]:
        labels = self.template.metadata.labels
        for key, value in self.selector.match_labels.items():
            if labels.get(key) != value:
                yield Problem(
                    ("selector", "matchLabels", key),
                    f"selects {quote(f'{key}={value}')}, but the template's labels do not have it",
                )
        if self.template.spec.restart_policy != "Always":
            yield Problem(
                ("template", "spec", "restartPolicy"), "must be Always in a Deployment, whose pods never end"
            )


class Deployment(Document):
    """A number of equal pods that are kept running."""

    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["Deployment"] = "Deployment"
    metadata: Metadata
    spec: DeploymentSpec
