"""Which nodes a class's pods may go to. Pure.

One rule for both sides: the pods carry it as node affinity, and the plan evaluates the same terms on the nodes'
labels (`term_admits`), so that what is planned for is what the scheduler will use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ttsfleet_operator.api.hardware import GPUSelector, HardwareClass
from ttsfleet_operator.fleet.nodes import (
    FEATURE_DISCOVERY,
    MIG_RESOURCE,
    PARTITION_LABEL,
    PLATFORM_SOURCES,
    LabelSource,
)
from ttsfleet_operator.plan import ClassPlan
from ttsfleet_operator.sites import MAX_MEMORY_MIB, memory_bounds

Term: TypeAlias = dict[str, Any]


def node_selector_terms(hardware_class: HardwareClass, plan: ClassPlan) -> list[Term]:
    """The `nodeSelectorTerms` of the class (alternatives); empty = any node, so no affinity is written."""
    return [] if hardware_class.gpu is None else selector_terms(hardware_class.gpu, plan.products)


def selector_terms(selector: GPUSelector, products: Sequence[str]) -> list[Term]:
    """One term per source of labels that can answer for `products` and the memory range. A later source counts only
    on nodes where no earlier one names a product."""
    if not products and memory_bounds(selector) == (0, MAX_MEMORY_MIB):
        return []
    if selector.resource_name.startswith(MIG_RESOURCE):
        slices = LabelSource(FEATURE_DISCOVERY.product, f"{selector.resource_name}.memory")
        return [{"matchExpressions": _expressions(selector, products, slices)}]
    terms: list[Term] = []
    earlier: list[Term] = []
    for source in (FEATURE_DISCOVERY, *PLATFORM_SOURCES):
        if products or source.memory:
            expressions = _expressions(selector, products, source)
            if source is not FEATURE_DISCOVERY and products:
                expressions.append({"key": PARTITION_LABEL, "operator": "DoesNotExist"})
            terms.append({"matchExpressions": expressions + earlier})
        earlier = [*earlier, {"key": source.product, "operator": "DoesNotExist"}]
    return terms


def term_admits(term: Term, labels: Mapping[str, str]) -> bool:
    """Whether a node with `labels` meets every expression of the term, as the scheduler reads it."""
    return all(_holds(one, labels.get(one["key"])) for one in term["matchExpressions"])


def _expressions(selector: GPUSelector, products: Sequence[str], source: LabelSource) -> list[Term]:
    expressions: list[Term] = []
    if products:
        shared = source.product == FEATURE_DISCOVERY.product  # only feature discovery appends -SHARED
        values = [product for product in products if shared or not product.endswith("-SHARED")]
        expressions.append({"key": source.product, "operator": "In", "values": values})
    elif source is not FEATURE_DISCOVERY:
        expressions.append({"key": source.product, "operator": "Exists"})
    if not source.memory:
        return expressions
    low, high = memory_bounds(selector)
    if low > 0:
        above = str(math.ceil(low / source.mib) - 1)
        expressions.append({"key": source.memory, "operator": "Gt", "values": [above]})
    if high < MAX_MEMORY_MIB:
        below = str(high // source.mib + 1)
        expressions.append({"key": source.memory, "operator": "Lt", "values": [below]})
    return expressions


def _holds(expression: Term, value: str | None) -> bool:
    operator, wanted = expression["operator"], expression.get("values", [])
    if operator == "DoesNotExist":
        return value is None
    if value is None:
        return False
    if operator == "In":
        return value in wanted
    if operator == "Exists":
        return True
    if not value.lstrip("-").isdigit():
        return False
    return int(value) > int(wanted[0]) if operator == "Gt" else int(value) < int(wanted[0])
