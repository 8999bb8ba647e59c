"""The labelling server against requests made up from its own OpenAPI document: right ones, and wrong ones."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from handscope.labeling.server.api import make_app
from handscope.labeling.suggestions.suggestion import Suggestion, Suggestions
from handscope.run.folder import Run
from hypothesis import HealthCheck, Phase, given, settings
from made_runs import TOKEN, annotating, make_run, serving
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

NO_SESSION: Any = None  # the document is the same for every run
COOKIE = "handscope_of_this_run"


def operations(secured: bool) -> dict[str, schemathesis.APIOperation]:
    """Operations by method and path; not `secured`, they are made up by what comes behind the token."""
    document = make_app(NO_SESSION, COOKIE).openapi()
    if not secured:
        del document["components"]["securitySchemes"]
        for path in document["paths"].values():
            for operation in path.values():
                del operation["security"]
    found = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]
    return {operation.label: operation for operation in found}


OPEN, SECURED = operations(False), operations(True)
CASES = [(name, GenerationMode.POSITIVE) for name in OPEN]
CASES += [(name, GenerationMode.NEGATIVE) for name, made in OPEN.items() if made.body or made.query]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("fuzz") / "run", 2)


@pytest.fixture(scope="module")
def address(run: Run) -> Iterator[str]:
    grid = np.ones((12, 12), np.uint8)
    unknown = grid * np.float32("nan")
    found = [Suggestion("silhouette", grid, grid - 1), Suggestion("probe", grid, grid - 1, unknown, 0.5)]
    made = Suggestions(found, {"detector": "There is none."})
    with serving(run, suggest=lambda *_: made) as address:  # the real ones load networks: see test_api.py
        yield address


@pytest.fixture(scope="module")
def cookies(address: str) -> dict[str, str]:
    with annotating(address, "Ann") as ann:
        return dict(ann.client.cookies)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_every_answer_is_a_documented_one(
    name: str, mode: GenerationMode, address: str, cookies: dict[str, str], run: Run
) -> None:
    real, examples = next(iter(run.metadata())), 15 if OPEN[name].body else 6

    @given(OPEN[name].as_strategy(generation_mode=mode))
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck), derandomize=True)
    def ask(case: schemathesis.Case) -> None:
        if len(str(case.path_parameters.get("sample", ""))) % 2:
            case.path_parameters["sample"] = real
        # A document cannot say that a sample is there, nor that two fields agree: right data may be refused for that.
        case.call_and_validate(
            base_url=address, cookies=cookies, excluded_checks=[positive_data_acceptance], timeout=30
        )

    ask()


@pytest.mark.parametrize("name", SECURED)
def test_every_operation_needs_the_token_and_says_so(name: str, address: str, cookies: dict[str, str]) -> None:
    operation = SECURED[name]
    assert operation.definition.raw["security"] == [{"token": []}]
    method, path = name.split()
    assert "401" in operation.definition.raw["responses"]
    (token,) = {name for name in cookies if not name.startswith("handscope_annotator")}
    for wrong in ("", f"{token}=", f"{token}={TOKEN[:-1]}", f"{token}={TOKEN}x", f"other={TOKEN}", f"{token}=\u00e9"):
        headers = {"cookie": wrong.encode()}
        url = address + path.format(sample="x", file="x", revision=1)
        assert httpx.request(method, url, headers=headers).status_code == 401


def test_the_document_has_every_path_that_is_served(address: str, cookies: dict[str, str]) -> None:
    served = httpx.get(f"{address}/openapi.json", cookies=cookies).json()["paths"]
    app = make_app(NO_SESSION, COOKIE)
    assert set(served) == {route.path for route in app.routes} - {"/openapi.json"}
