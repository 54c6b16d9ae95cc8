"""Credentials: every way to be refused, and the ways to be accepted."""

import re
import time
from collections.abc import Callable

import pytest

from tests.integration.world import Answer, World, progress_path, unique

type Header = tuple[str, str]

# Says what is wrong with a header that has no bearer token at all.
FORM = "The Authorization header must be 'Bearer <token>', and must be sent once."


def ask(world: World, batch_id: str, *headers: Header) -> Answer:
    """Send a request with these headers and no other credentials."""
    return world.request("GET", progress_path(batch_id), headers)


def bearer(token: str) -> Header:
    return "Authorization", f"Bearer {token}"


def key(token: str) -> Header:
    return "X-API-Key", token


def long_ago() -> int:
    return int(time.time()) - 3600


@pytest.fixture
def batch_id(world: World) -> str:
    return world.put_batch()


@pytest.fixture
def token(world: World) -> str:
    return world.put_token()


def test_no_credentials(world: World, batch_id: str) -> None:
    """The challenge has a realm and, without credentials, no error (RFC 6750, section 3)."""
    answer = ask(world, batch_id)
    assert (401, "AUTHENTICATION_REQUIRED") == answer.outcome
    assert re.fullmatch(r'Bearer realm="[^"]*"', answer.headers["WWW-Authenticate"])


@pytest.mark.parametrize(
    "name", ["Authorization", "authorization", "AUTHORIZATION", "X-API-Key", "x-api-key", "X-Api-Key"]
)
def test_header_names_know_no_case(world: World, batch_id: str, token: str, name: str) -> None:
    value = token if name.lower() == "x-api-key" else f"Bearer {token}"
    assert 200 == ask(world, batch_id, (name, value)).status


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_knows_no_case(world: World, batch_id: str, token: str, scheme: str) -> None:
    assert 200 == ask(world, batch_id, ("Authorization", f"{scheme} {token}")).status


def test_token_itself_knows_case(world: World, batch_id: str) -> None:
    token = world.put_token(unique("Token"))
    assert (401, "INVALID_API_KEY") == ask(world, batch_id, key(token.lower())).outcome


def refusals(world: World) -> list[tuple[str, str, str]]:
    """Return refused tokens of each kind, with their codes as bearer token and as API key."""
    revoked = "2024-12-16T10:30:02.123Z"
    return [
        (unique("unknown"), "TOKEN_INVALID", "INVALID_API_KEY"),
        ("bad token", "TOKEN_INVALID", "INVALID_API_KEY"),
        (world.put_token(expires_at=long_ago()), "TOKEN_EXPIRED", "API_KEY_EXPIRED"),
        (world.put_token(revoked_at=revoked), "TOKEN_INVALID", "API_KEY_DEACTIVATED"),
        (world.put_token(revoked_at=revoked, expires_at=long_ago()), "TOKEN_INVALID", "API_KEY_DEACTIVATED"),
        (world.put_token(revoked_at=revoked, expires_at=2 * 10**9), "TOKEN_INVALID", "API_KEY_DEACTIVATED"),
    ]


def test_refused_by_bearer(world: World, batch_id: str) -> None:
    """Unknown, malformed and revoked tokens get one answer, so a revoked token does not reveal that it was valid."""
    for token, code, _ in refusals(world):
        answer = ask(world, batch_id, bearer(token))
        assert (401, code) == answer.outcome
        assert "client_error" == answer.error["type"]
        assert re.match(r'Bearer realm="[^"]*", ?error="invalid_token"', answer.headers["WWW-Authenticate"])


def test_refused_by_key(world: World, batch_id: str) -> None:
    """The code reveals that a key was deactivated. The challenge is the same."""
    for token, _, code in refusals(world):
        answer = ask(world, batch_id, key(token))
        assert (401, code) == answer.outcome
        assert re.match(r'Bearer realm="[^"]*", ?error="invalid_token"', answer.headers["WWW-Authenticate"])


def test_refused_again_the_same(world: World, batch_id: str) -> None:
    """The second refusal, from the cache, is the same."""
    for token, _, code in refusals(world):
        assert [(401, code)] * 2 == [ask(world, batch_id, key(token)).outcome for _ in range(2)]


def test_expiry_is_checked_although_the_token_is_remembered(
    world: World, batch_id: str, later: Callable[[float], None]
) -> None:
    token = world.put_token(expires_at=int(time.time()) + 1_000)
    assert 200 == ask(world, batch_id, bearer(token)).status

    later(1_001)

    assert (401, "TOKEN_EXPIRED") == ask(world, batch_id, bearer(token)).outcome
    assert (401, "API_KEY_EXPIRED") == ask(world, batch_id, key(token)).outcome


def test_expiry_in_the_future_is_accepted(world: World, batch_id: str) -> None:
    assert 200 == ask(world, batch_id, bearer(world.put_token(expires_at=int(time.time()) + 3600))).status


@pytest.mark.parametrize(
    "value", ["Bearer", "bearer", "Basic dXNlcjpwYXNz", "Token abcdefghijkl", "Digest abcdefghijkl", "abcdefghijkl"]
)
def test_another_scheme_or_bearer_alone(world: World, batch_id: str, value: str) -> None:
    """The request has credentials, so the token is invalid rather than missing."""
    answer = ask(world, batch_id, ("Authorization", value))
    assert (401, "TOKEN_INVALID") == answer.outcome
    assert FORM == answer.error["message"]
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_good_token_of_another_scheme_is_refused(world: World, batch_id: str, token: str) -> None:
    for value in (f"Basic {token}", token, f"Bearer{token}", f"BearerX {token}"):
        answer = ask(world, batch_id, ("Authorization", value))
        assert (401, "TOKEN_INVALID") == answer.outcome
        assert FORM == answer.error["message"]


def test_authorization_alone_decides(world: World, batch_id: str, token: str) -> None:
    """With both headers the API key is ignored, valid or not."""
    unknown, expired = unique("unknown"), world.put_token(expires_at=long_ago())
    assert 200 == ask(world, batch_id, bearer(token), key(unknown)).status
    assert 200 == ask(world, batch_id, bearer(token), key("bad key")).status
    assert 200 == ask(world, batch_id, bearer(token), key(unknown), key(expired)).status
    assert (401, "TOKEN_INVALID") == ask(world, batch_id, bearer(unknown), key(token)).outcome
    assert (401, "TOKEN_EXPIRED") == ask(world, batch_id, bearer(expired), key(token)).outcome
    assert (401, "TOKEN_INVALID") == ask(world, batch_id, ("Authorization", "Bearer"), key(token)).outcome
    assert (401, "TOKEN_INVALID") == ask(world, batch_id, ("Authorization", "Basic YWJj"), key(token)).outcome


def test_authorization_decides_whose_batches_are_seen(world: World, batch_id: str, token: str) -> None:
    stranger = world.put_token(owner=unique("owner"))
    assert 200 == ask(world, batch_id, bearer(token), key(stranger)).status
    assert (404, "BATCH_NOT_FOUND") == ask(world, batch_id, bearer(stranger), key(token)).outcome


def test_header_twice_with_the_same_value(world: World, batch_id: str, token: str) -> None:
    assert 200 == ask(world, batch_id, bearer(token), bearer(token)).status
    assert 200 == ask(world, batch_id, key(token), key(token)).status


def test_header_twice_with_different_values(world: World, batch_id: str, token: str) -> None:
    """Two different values are refused in either order."""
    other = world.put_token()
    for first, second in ((token, other), (other, token), (token, "bad"), ("bad", token)):
        twice = ask(world, batch_id, bearer(first), bearer(second))
        assert (401, "TOKEN_INVALID") == twice.outcome
        assert FORM == twice.error["message"]
        assert (401, "INVALID_API_KEY") == ask(world, batch_id, key(first), key(second)).outcome


def test_header_twice_in_different_spellings(world: World, batch_id: str, token: str) -> None:
    """Header names are case-insensitive: this is one header sent twice."""
    other = world.put_token()
    twice = ask(world, batch_id, ("Authorization", f"Bearer {token}"), ("authorization", f"Bearer {other}"))
    assert (401, "TOKEN_INVALID") == twice.outcome
    assert (401, "INVALID_API_KEY") == ask(world, batch_id, ("X-API-Key", token), ("x-api-key", other)).outcome


@pytest.mark.parametrize(
    "token",
    [
        "12345678",
        "a" * 512,
        "AZaz09-._~+/",
        "abcdefg=",
        "abcdef==",
        "a=======",
        "one.two.three",
        "/+~_.-./",
    ],
)
def test_every_b64token_is_looked_up(world: World, batch_id: str, token: str) -> None:
    """8 to 512 characters of RFC 6750's grammar, including padding. There is no further format."""
    world.put_token(token)
    assert 200 == ask(world, batch_id, bearer(token)).status
    assert 200 == ask(world, batch_id, key(token)).status


@pytest.mark.parametrize(
    "token",
    [
        "1234567",
        "a" * 513,
        "========",
        "=abcdefgh",
        "abcd=efgh",
        "abcd efgh",
        "abcdefgh,",
        "abcdefgh:",
        "abcdefgh\\",
        'abcdefgh"',
        "abcdéfgh",
        "abcdefg٣",
        "abcdefg\x00h",
        "abcdefgh$",
        "{abcdefgh}",
        "abcd\tefgh",
    ],
)
def test_anything_else_is_refused_without_a_look_up(world: World, batch_id: str, token: str) -> None:
    """Even if it is in the table."""
    world.put_token(token)
    assert (401, "TOKEN_INVALID") == ask(world, batch_id, bearer(token)).outcome
    assert (401, "INVALID_API_KEY") == ask(world, batch_id, key(token)).outcome


def test_the_hash_of_a_token_is_not_a_token(world: World, batch_id: str, token: str) -> None:
    """A hash from the table cannot be used as a token."""
    del token
    hashes = [item["token_hash"]["S"] for item in world.dynamodb.scan(TableName=world.tokens_table)["Items"]]
    assert hashes
    assert (401, "INVALID_API_KEY") == ask(world, batch_id, key(hashes[0])).outcome


def test_each_owner_sees_their_own(world: World) -> None:
    owners = [unique("owner"), unique("owner")]
    batches = [world.put_batch(owner=owner) for owner in owners]
    statuses = [[world.get(batch_id, owner).status for batch_id in batches] for owner in owners]
    assert [[200, 404], [404, 200]] == statuses


def test_several_tokens_of_one_owner(world: World, batch_id: str) -> None:
    assert [200, 200] == [ask(world, batch_id, bearer(world.put_token())).status for _ in range(2)]


def test_a_token_for_one_batch_gets_for_others_the_answer_of_a_stranger(world: World, batch_id: str) -> None:
    """Another batch of the owner, a stranger's and a missing one have the same answer, also for a cursor and a tag."""
    token = world.put_token(batch_id=batch_id)
    other = world.put_batch()
    world.put_jobs(other, ["pending"] * 2)
    cursor = world.get(other, limit="1").data["next_cursor"]
    tag = world.get(other).headers["ETag"]
    assert 200 == ask(world, batch_id, key(token)).status
    assert 304 == ask(world, batch_id, key(token), ("If-None-Match", "*")).status
    answers = [
        ask(world, other, key(token)),
        ask(world, other, bearer(token), ("If-None-Match", tag)),
        ask(world, other, key(token), ("If-None-Match", "*")),
        world.request("GET", progress_path(other), [key(token)], {"cursor": cursor, "limit": "1"}),
        ask(world, world.put_batch(owner=unique("owner")), key(token)),
        ask(world, unique("missing"), key(token)),
    ]
    assert {(404, "BATCH_NOT_FOUND", answers[0].error["message"])} == {
        (*answer.outcome, answer.error["message"]) for answer in answers
    }
    assert {"batch_id": other} == answers[0].error["details"]


def test_a_token_for_a_batch_of_another_owner_opens_nothing(world: World) -> None:
    batch_id = world.put_batch(owner=unique("owner"))
    assert (404, "BATCH_NOT_FOUND") == ask(world, batch_id, key(world.put_token(batch_id=batch_id))).outcome


def test_bad_parameters_of_another_batch_are_a_422(world: World, batch_id: str) -> None:
    """Parameters are checked before the batch, as for every token."""
    token = world.put_token(batch_id=batch_id)
    answer = world.request("GET", progress_path(world.put_batch()), [key(token)], {"limit": "x"})
    assert (422, "VALIDATION_ERROR") == answer.outcome
