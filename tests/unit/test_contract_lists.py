"""Parameters and error codes: every place that lists them lists the same ones."""

import re
from collections.abc import Iterator
from typing import Any

from batch_progress.errors import BatchConflict, BatchProgressError, IllegalTransition, JobNotFound
from batch_progress.table import JobStatus
from functions.progress import parameters
from functions.progress.envelope import STATUS
from functions.progress.http import PARAMETERS
from scripts.openapi import document

# Raised by the recorder only, so they have no HTTP status.
RECORDER_ERRORS = {BatchConflict, IllegalTransition, JobNotFound}
(PATH, *_) = document()["paths"].values()
QUERY: dict[str, dict[str, Any]] = {one["name"]: one["schema"] for one in PATH["parameters"] if one["in"] == "query"}


def test_every_query_parameter_is_parsed_validated_and_in_the_document() -> None:
    assert set(PARAMETERS) == QUERY.keys()
    assert set(PARAMETERS) == parameters.HttpParameters.model_fields.keys() - {"batch_id"}
    assert set(parameters.INCLUDES) == set(re.findall(r"\w+", QUERY["include"]["pattern"]))
    assert set(JobStatus) == set(re.findall(r"\w+", QUERY["status"]["pattern"]))


def subclasses(kind: type[BatchProgressError]) -> Iterator[type[BatchProgressError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_every_error_code_has_a_status_and_is_in_the_document() -> None:
    kinds: set[type[BatchProgressError]] = {BatchProgressError, *subclasses(BatchProgressError)}
    codes = {each.code for each in kinds if each not in RECORDER_ERRORS}
    assert codes == STATUS.keys()
    documented = {
        code: int(status)
        for status, response in PATH["get"]["responses"].items()
        if "content" in response
        for code, example in response["content"]["application/json"]["examples"].items()
        if not example["value"]["success"] and example["value"]["error"]["timestamp"]  # the gateway's errors have none
    }
    assert documented == STATUS
