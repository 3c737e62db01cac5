"""Requests that the OpenAPI document allows, and requests that it forbids, made from it."""

from __future__ import annotations

from contextlib import suppress

import pytest
import schemathesis
from fixtures.running_service import running
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from finegrain.search.searcher import Searcher
from finegrain.serve.app import Settings, create_app

EXAMPLES = 25
"""Requests of each kind for each operation."""


@pytest.fixture(scope="module")
def api(tiny_plan, filled, tmp_path_factory):
    """The document of a running service."""
    from finegrain.gallery import Gallery

    path = tmp_path_factory.mktemp("schema") / "g"
    with Gallery(filled, create=False) as gallery:
        gallery.backup(path)
    app = create_app(Searcher(tiny_plan, gallery=path, threads=1), Settings())
    with running(app) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_a_failure_of_the_service(api, mode):
    """The plugin of schemathesis does not run with pytest 9.2, so the operations are a loop."""
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) >= 15
    for operation in operations:

        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck),
            database=None, derandomize=True,
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def answers(case):
            # A filter or a text may be wrong although it fits the schema.
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        with suppress(Unsatisfiable):  # an operation without parameters forbids nothing
            answers()
