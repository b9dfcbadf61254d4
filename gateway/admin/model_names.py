"""Names of models in limits and keys, held against penstock.yaml: under any other name nothing would be enforced."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from gateway.admin.names import quoted
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.domain.config import GatewayConfig

NAMES_TOLD_MAX = 20


def check_models(names: Iterable[str], config: GatewayConfig, *, param: str, anyway: str) -> None:
    """Raise InvalidRequest, naming `param`, for the first name that is no model's own name in penstock.yaml.

    Of an alias it tells the model; of a name that is unknown the known ones, NAMES_TOLD_MAX at most, and `anyway`: how
    to have it all the same.
    """
    for name in names:
        if name in config.models:
            continue
        meant = config.by_name.get(name)
        if meant is not None:
            raise InvalidRequest(f"{quoted(name)} is an alias of {quoted(meant.name)}: name that", param=param)
        told = ", ".join(quoted(known) for known in islice(config.models, NAMES_TOLD_MAX)) or "none"
        more = len(config.models) - NAMES_TOLD_MAX
        rest = f" and {more} more" if more > 0 else ""
        raise InvalidRequest(
            f"penstock.yaml has no model {quoted(name)}, only {told}{rest}; {anyway} takes it all the same", param=param
        )
