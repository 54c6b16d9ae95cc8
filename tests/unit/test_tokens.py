"""The tokens table: how it is read, how an item is decoded, and how long it is cached."""

import hashlib
from typing import Any

import msgspec
import pytest

from batch_progress import decode
from batch_progress.dynamodb import Client
from batch_progress.errors import TokenExpired, TokenInvalid
from batch_progress.table import LAST_SECOND
from batch_progress.tokens import Caller, Credential, Scheme, TokenStore

GOOD = {"owner_id": {"S": "demo"}}
# By the contract a revoked token is refused within this time.
REMEMBERED_SECONDS = 30
KEPT = 1_024


class Table(Client):
    """A tokens table in which every token has the same item; it records its requests."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._result = decode.GetResult(msgspec.Raw(msgspec.json.encode(item)))
        self.asked: list[dict[str, Any]] = []

    def get_item(self, **arguments: Any) -> decode.GetResult:  # noqa: ANN401  # DynamoDB's arguments
        self.asked.append(arguments)
        return self._result


def show(tokens: TokenStore, now: float, *numbers: int) -> list[str]:
    return [tokens.caller(Credential(Scheme.BEARER, f"good-token-{number}"), now).owner_id for number in numbers]


def test_a_token_is_read_by_its_hash_as_of_now() -> None:
    """With a consistent read a new token works and a revoked one is refused at once."""
    table = Table(GOOD)
    assert ["demo"] == show(TokenStore(table, "tokens"), 0, 1)
    key = {"token_hash": {"S": hashlib.sha256(b"good-token-1").hexdigest()}}
    assert [{"TableName": "tokens", "Key": key, "ConsistentRead": True}] == table.asked


@pytest.mark.parametrize(("later", "reads"), [(0, 1), (0.5, 1), (29.9, 1), (REMEMBERED_SECONDS, 2), (1e9, 2), (-1, 2)])
def test_a_token_is_remembered_for_half_a_minute(later: float, reads: int) -> None:
    """Not longer, and not after the clock was set back: the entry's age is then unknown."""
    table = Table(GOOD)
    tokens = TokenStore(table, "tokens")
    show(tokens, 1_000, 1)
    show(tokens, 1_000 + later, 1)
    assert reads == len(table.asked)


def test_the_one_that_was_read_longest_ago_is_forgotten_first() -> None:
    """1,024 tokens are cached. A token that is read again moves to the end."""
    table = Table(GOOD)
    tokens = TokenStore(table, "tokens")
    everyone = range(KEPT)
    show(tokens, 0, *everyone, *everyone)
    assert KEPT == len(table.asked)
    show(tokens, REMEMBERED_SECONDS, 0)
    show(tokens, REMEMBERED_SECONDS - 1, KEPT)
    table.asked.clear()
    show(tokens, REMEMBERED_SECONDS - 1, *range(2, KEPT + 1))
    show(tokens, REMEMBERED_SECONDS, 0)
    assert [] == table.asked
    show(tokens, REMEMBERED_SECONDS - 1, 1)
    assert 1 == len(table.asked)


@pytest.mark.parametrize("now", [99.9, 100, 100.1])
def test_a_token_is_expired_from_its_last_second_on(now: float) -> None:
    tokens = TokenStore(Table(GOOD | {"expires_at": {"N": "100"}}), "tokens")
    if now < 100:
        assert ["demo"] == show(tokens, now, 1)
    else:
        with pytest.raises(TokenExpired):
            show(tokens, now, 1)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"owner_id": {"S": ""}},
        {"owner_id": {"N": "1"}},
        GOOD | {"expires_at": {"S": "never"}},
        GOOD | {"expires_at": {"N": "-1"}},
        GOOD | {"revoked_at": "yesterday"},
        GOOD | {"expires_at": {"N": "1734345002123"}},
        GOOD | {"issuer": {"BOOL": True}},
        GOOD | {"batch_id": {"N": "1"}},
        GOOD | {"batch_id": {"NULL": True}},
        GOOD | {"batch_id": {"S": ""}},
    ],
    ids=str,
)
def test_an_item_that_is_wrong_in_one_thing_opens_nothing(item: dict[str, Any]) -> None:
    """An expiry of the wrong type may have passed, and one in milliseconds would be millennia away."""
    with pytest.raises(TokenInvalid):
        show(TokenStore(Table(item), "tokens"), 0, 1)


def test_the_last_second_of_the_year_9999_is_an_expiry() -> None:
    """Larger numbers are milliseconds."""
    assert ["demo"] == show(TokenStore(Table(GOOD | {"expires_at": {"N": str(LAST_SECOND)}}), "tokens"), 0, 1)


@pytest.mark.parametrize("batch_id", [None, "batch_x"])
def test_a_token_may_be_for_one_batch(batch_id: str | None) -> None:
    """A token without a batch opens all of its owner's."""
    item = GOOD | ({"batch_id": {"S": batch_id}} if batch_id else {})
    caller = TokenStore(Table(item), "tokens").caller(Credential(Scheme.BEARER, "good-token"), 0)
    assert Caller("demo", batch_id) == caller
    assert (True, batch_id is None) == (caller.may_see("batch_x"), caller.may_see("batch_y"))


def test_a_credential_does_not_show_its_token() -> None:
    """It can stand in a traceback, and that in a log."""
    assert "Credential(scheme=<Scheme.BEARER: 'bearer'>)" == repr(Credential(Scheme.BEARER, "secret-token"))
