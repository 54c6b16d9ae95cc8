"""`sam deploy` with the template's parameters in combination, on an emulator of AWS.

Eight deployments have every pair of choices of seven parameters. The emulator takes no alarms, because it refuses
metric math: `tests/package/test_stack.py` checks every combination in SAM's expansion.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.ministack import REGION
from tests.engines.test_deploy import Stack, deployed
from tests.integration.world import unique

# What a second choice of each parameter is; the first one is its default.
CHOICES: tuple[tuple[str, ...], ...] = (
    ("Tracing=true",),
    ("WatchPage=false",),
    ("ManageApiLogRole=false",),
    ("TokenIssuer=https://issuer.example.com", "TokenAudience=batch-progress"),
    ("EventBusName=another",),
    ("ReservedConcurrency=5",),
    (f"KmsKeyArn=arn:aws:kms:{REGION}:123456789012:key/0b1c2d3e-0000-4000-8000-000000000000",),
)
# The defaults that take a choice back: a parameter that is not named keeps its value.
DEFAULTS: tuple[tuple[str, ...], ...] = (
    ("Tracing=false",),
    ("WatchPage=true",),
    ("ManageApiLogRole=true",),
    ('TokenIssuer=""', 'TokenAudience=""'),
    ("EventBusName=default",),
    ("ReservedConcurrency=0",),
    ('KmsKeyArn=""',),
)
# An orthogonal array: each pair of columns has each pair of digits.
ROWS = ("0000000", "0001111", "0110011", "0111100", "1010101", "1011010", "1100110", "1101001")


@pytest.fixture(scope="module")
def stack(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack with its defaults."""
    with deployed(build, tmp_path_factory.mktemp("deployed")) as stack:
        yield stack


def test_the_rows_have_every_pair() -> None:
    columns = list(zip(*ROWS, strict=True))
    assert len(CHOICES) == len(DEFAULTS) == len(columns)
    for number, one in enumerate(columns):
        assert all(4 == len(set(zip(one, other, strict=True))) for other in columns[number + 1 :])


@pytest.mark.parametrize("row", ROWS[1:])
def test_a_client_gets_the_progress_whatever_is_chosen(stack: Stack, row: str) -> None:
    """And the page is served unless it is left out."""
    chosen = [
        name for digit, some in zip(row, zip(DEFAULTS, CHOICES, strict=True), strict=True) for name in some[int(digit)]
    ]
    stack.deploy(*chosen)
    batch_id = stack.put_batch(unique("batch"))
    stack.put_jobs(batch_id, ["completed", "pending"])
    assert 2 == stack.get(batch_id).data["total_urls"]
    page = stack.request("GET", f"/watch/{batch_id}")
    assert (404 if "WatchPage=false" in chosen else 200) == page.status
    variables = stack.aws.client("lambda").get_function_configuration(
        FunctionName=stack.outputs["ProgressFunctionName"].partition(":")[0], Qualifier="live"
    )["Environment"]["Variables"]
    issuer = "https://issuer.example.com" if "TokenAudience=batch-progress" in chosen else ""
    assert issuer == variables["BATCH_PROGRESS_TOKEN_ISSUER"]
