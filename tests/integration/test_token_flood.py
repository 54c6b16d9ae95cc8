"""Floods of unknown tokens, and headers that are ambiguous."""

import tracemalloc
from typing import Any

import msgspec
import pytest

from batch_progress import decode
from batch_progress.dynamodb import Client
from batch_progress.errors import CredentialRefused
from batch_progress.tokens import Credential, Scheme, TokenStore
from tests.integration.world import World, event, progress_path, unique

FLOOD = 100_000
# The contract: a revoked token is refused within this time.
REMEMBERED_SECONDS = 30


class Table(Client):
    """A tokens table that has every token or none, and counts its reads."""

    def __init__(self, *, knows: bool) -> None:
        self.reads = 0
        item = msgspec.Raw(b'{"owner_id": {"S": "demo"}}') if knows else msgspec.Raw()
        self._result = decode.GetResult(item)

    def revoke(self) -> None:
        item = msgspec.Raw(b'{"owner_id": {"S": "demo"}, "revoked_at": {"S": "2024-12-16T10:30:02.123Z"}}')
        self._result = decode.GetResult(item)

    def get_item(self, **_: Any) -> decode.GetResult:  # noqa: ANN401  # DynamoDB's arguments
        self.reads += 1
        return self._result


def refused(tokens: TokenStore, token: str, now: float) -> bool:
    try:
        tokens.caller(Credential(Scheme.BEARER, token), now)
    except CredentialRefused:
        return True
    return False


def grown(tokens: TokenStore, numbers: range) -> tuple[int, int]:
    """Look up a token for each number; return how many are refused and how many bytes memory grew."""
    tracemalloc.start()
    try:
        count = sum(refused(tokens, f"a-token-{number}", 0) for number in numbers)
        return count, tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_flood_of_unknown_tokens_costs_a_read_each_and_no_memory() -> None:
    """Unknown tokens are not cached."""
    table = Table(knows=False)
    count, grew = grown(TokenStore(table, "tokens"), range(FLOOD))
    assert FLOOD == count == table.reads
    assert grew < 100_000


def test_a_flood_of_known_tokens_costs_bounded_memory() -> None:
    """An owner with many tokens evicts others' tokens, but the cache does not grow."""
    table = Table(knows=True)
    tokens = TokenStore(table, "tokens")
    for numbers in (range(5_000), range(5_000, 15_000)):
        _, grew = grown(tokens, numbers)
        # About 500 bytes for each of the 1,024 tokens that are kept.
        assert grew < 1_000_000
    assert 15_000 == table.reads


def test_a_flood_of_malformed_tokens_costs_no_read() -> None:
    table = Table(knows=True)
    tokens = TokenStore(table, "tokens")
    assert all(refused(tokens, token, 0) for token in ("short", "a" * 513, "a" * 10_240, "no token", "é" * 20))
    assert 0 == table.reads


def test_a_known_token_outlives_a_flood() -> None:
    """Unknown tokens do not evict a known one: it is read only once."""
    known, unknown = Table(knows=True), Table(knows=False)
    tokens = TokenStore(known, "tokens")
    assert not refused(tokens, "good-token", 0)
    tokens._client = unknown
    assert all(refused(tokens, f"a-token-{number}", 1) for number in range(2_000))
    assert not refused(tokens, "good-token", REMEMBERED_SECONDS - 1)
    assert (1, 2_000) == (known.reads, unknown.reads)


def test_a_revoked_token_is_refused_within_its_time() -> None:
    """The function reads a token again after 30 seconds, even if it is used all the time."""
    table = Table(knows=True)
    tokens = TokenStore(table, "tokens")
    assert not refused(tokens, "good-token", 0)
    table.revoke()
    assert [False, False, True] == [
        refused(tokens, "good-token", now) for now in (1, REMEMBERED_SECONDS - 1, REMEMBERED_SECONDS)
    ]


def test_a_token_issued_a_second_ago_works_at_once(world: World) -> None:
    """The token was refused before, but an unknown token is not cached."""
    batch_id, token = world.put_batch(), unique("token")
    request = event("GET", progress_path(batch_id), [("X-API-Key", token)])
    assert [401] * 3 == [world.invoke(request)["statusCode"] for _ in range(3)]
    world.put_token(token)
    assert 200 == world.invoke(request)["statusCode"]


# Headers


@pytest.fixture
def reads(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that the function has sent to DynamoDB."""
    del world  # needed only for its tables
    sent: list[str] = []
    send = Client._attempt

    def note(client: Client, operation: str, body: bytes, until: float) -> bytes:
        sent.append(operation)
        return send(client, operation, body, until)

    monkeypatch.setattr(Client, "_attempt", note)
    return sent


SMUGGLED = {
    "twice": ["{token}", "other-token"],
    "twice, the good one last": ["other-token", "{token}"],
    "twice, one empty": ["{token}", ""],
    "folded": ["{token}\r\n other-token"],
    "folded at the end": ["{token}\r\n "],
    "folded at the beginning": ["\r\n {token}"],
    "another header in it": ["{token}\r\nX-API-Key: {token}"],
    "two in one": ["{token}, {token}"],
    "two schemes in one": ["{token}, Basic abcdefgh"],
    "a letter of no token": ["{token}é"],
    "a byte of no letter": ["{token}\udcff"],
    "a letter that looks like another": ["{token}\u0430"],
    "no end": ["{token}\0"],
    "a blank of no blank": ["\u00a0{token}"],
    "10 KB": ["{token}" + "a" * 10_240],
    "10 KB within": ["{token}" + " " * 10_240 + "x"],
}


@pytest.mark.parametrize("way", SMUGGLED)
@pytest.mark.parametrize(("name", "before"), [("Authorization", "Bearer "), ("X-API-Key", "")])
def test_a_smuggled_token_is_refused_without_a_read(
    world: World, reads: list[str], way: str, name: str, before: str
) -> None:
    """Values that two parsers could read differently are refused."""
    batch_id, token = world.put_batch(), world.put_token()
    values = [(name, value.replace("{token}", before + token)) for value in SMUGGLED[way]]
    answer = world.request("GET", progress_path(batch_id), values)
    assert 401 == answer.status
    assert token not in answer.text + str(answer.headers)
    assert [] == reads
