"""Requests made from the API's own description to a real Ray Serve, with faulty engines."""

import schemathesis

from benchmarks.faults.fuzz import CASE_S, RECIPE, fuzz
from tests.conftest import Serving


def test_no_case_fails_over_the_real_proxy(serving: Serving) -> None:
    with serving(RECIPE) as served:
        schema = schemathesis.openapi.from_url(f"{served.base_url}/openapi.json")
        outcome = fuzz(schema, cases=200, seed=7)
    assert outcome.failures == []
    assert outcome.slowest_s < CASE_S
    statuses = {status for _, _, status in outcome.statuses}
    assert {200, 400, 404, 503} <= statuses  # 503: too few proposals, as an engine failed
