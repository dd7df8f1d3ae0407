"""The API against its own description, with requests that somebody else's tool makes up."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.conftest import Server, wall

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_made_up_requests_break_neither_the_server_nor_the_schema(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.address}/openapi.json")
    image = wall(1, 64, 64)
    calls: list[int] = []

    @schema.hook("map_body")
    def with_real_images(context: object, body: object) -> object:
        """Every second time the made-up image is replaced by a real one."""
        calls.append(1)
        if isinstance(body, bytes) and len(calls) % 2:
            return image
        if isinstance(body, dict) and "image" in body and len(calls) % 2:
            return {**body, "image": [image]}
        return body

    for operation in (result.ok() for result in schema.get_all_operations()):

        @given(case=operation.as_strategy())
        @settings(
            max_examples=15, deadline=None, database=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def try_it(case: Case) -> None:
            response = case.call(timeout=60)
            case.validate_response(response, checks=CHECKS)

        try_it()
    assert server.good()
