"""How far estimates were from what requests used: histograms of the quotient, by model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_QUOTIENTS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 10.0)


class EstimateErrors:
    """What was used for each token that was reserved: 1 is exact, above it is a debt, below it was held in vain."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._quotients = Histogram(
            "penstock_estimate_quotient",
            "Tokens used for each token reserved, of requests with exact usage; prompt or completion.",
            ("model", "kind"),
            buckets=_QUOTIENTS,
            registry=registry,
        )
        self._children: dict[str, tuple[Histogram, Histogram]] = {}
        """Prompt and completion by model; names are those of penstock.yaml."""

    def observe(self, model: str, *, prompt: tuple[int, int], completion: tuple[int, int]) -> None:
        """Count one request: tokens reserved and tokens used. Where none were reserved there is nothing to compare."""
        children = self._children.get(model)
        if children is None:
            children = self._children[model] = (
                self._quotients.labels(model, "prompt"),
                self._quotients.labels(model, "completion"),
            )
        for child, (reserved, used) in zip(children, (prompt, completion), strict=True):
            if reserved > 0:
                child.observe(used / reserved)
