"""What a pod template asks of a node."""

from __future__ import annotations

from typing import Any

import pytest

from bayplan.model.nodes import Amounts
from manager.planning.requirements import requirements_of
from manager.planning.view import Toleration


def template(*resources: dict[str, Any], **spec: Any) -> dict[str, Any]:
    containers = [{"name": f"c{index}", "resources": each} for index, each in enumerate(resources)]
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers, **spec}}


class TestRequirements:
    def test_the_requests_of_all_containers_are_summed(self) -> None:
        found = requirements_of(
            template(
                {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
                {"requests": {"cpu": "1"}},
            )
        )

        assert found.requests == Amounts(cpu_millis=1250, memory_bytes=64 * 2**20, pods=1)

    def test_a_limit_stands_in_for_a_request_that_is_not_given(self) -> None:
        found = requirements_of(template({"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}}))

        assert found.requests == Amounts(cpu_millis=100, memory_bytes=128 * 2**20, pods=1)

    def test_a_request_of_nothing_is_not_replaced_by_the_limit(self) -> None:
        assert requirements_of(
            template({"requests": {"cpu": "0"}, "limits": {"cpu": "1"}})
        ).requests == Amounts(pods=1)

    @pytest.mark.parametrize(
        "empty", [{}, {"spec": None}, {"spec": {}}, template({}), template({"requests": None})]
    )
    def test_a_template_that_asks_for_nothing_books_one_pod(self, empty: dict[str, Any]) -> None:
        assert requirements_of(empty).requests == Amounts(pods=1)

    def test_selectors_are_sorted_so_that_equal_templates_are_equal(self) -> None:
        one = requirements_of(template({}, nodeSelector={"b": "1", "a": "2"}))
        other = requirements_of(template({}, nodeSelector={"a": "2", "b": "1"}))

        assert one == other
        assert hash(one) == hash(other)
        assert one.node_selector == (("a", "2"), ("b", "1"))

    def test_tolerations_have_kubernetes_defaults(self) -> None:
        found = requirements_of(
            template({}, tolerations=[{"key": "gpu", "value": "a"}, {"operator": "Exists"}])
        )

        assert found.tolerations == (Toleration(key="gpu", value="a"), Toleration(operator="Exists"))

    def test_what_is_no_quantity_is_refused(self) -> None:
        with pytest.raises(ValueError, match="quantity"):
            requirements_of(template({"requests": {"cpu": "lots"}}))
