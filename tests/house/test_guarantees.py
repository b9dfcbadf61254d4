"""The page of guarantees is generated: what its own results render to, with every promise, each within its bound."""

from __future__ import annotations

import ast

from tests.guarantees.page import PAGE, rendered, results_of
from tests.guarantees.promises import PROMISES
from tests.support.source import REPOSITORY, fail_for


def test_the_page_is_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    results, machine = results_of(page)
    assert set(results) == set(PROMISES), "run `make guarantees`"
    assert rendered(results, machine) == page, "run `make guarantees`"
    fail_for(f"{name}: {result}" for name, result in results.items() if result.value > PROMISES[name].limit)


def test_every_promise_has_a_test_that_measures_it() -> None:
    fail_for(f"{promise.id}: {promise.test}" for promise in PROMISES.values() if not _exists(promise.test))


def _exists(test: str) -> bool:
    path, _, name = test.partition("::")
    if not (REPOSITORY / path).is_file():
        return False
    tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
    return name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
