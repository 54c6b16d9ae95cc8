"""Session tokens through the whole function: valid JWTs of an HTTP issuer, and every known kind of invalid one."""

import hashlib
import hmac
import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from batch_progress import jwks
from batch_progress.errors import CredentialRefused, TokenInvalid
from batch_progress.settings import settings
from batch_progress.tokens import session_owner
from functions.progress import app
from tests.integration.issuer import (
    AUDIENCE,
    DISCOVERY,
    KEYS,
    Issuer,
    SigningKey,
    encoded,
    issuing,
    signed,
    unsigned,
)
from tests.integration.world import Answer, World, event, progress_path, unique


@pytest.fixture
def issuer(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    """An issuer that the function trusts. Nothing is cached, and no request times out because the machine is busy."""
    del world  # it sets the environment first
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 60.0)
    with issuing() as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        forget()
        yield running
    forget()


def forget() -> None:
    """Clear cached settings and keys."""
    for cached in (settings, app._sessions, app._tokens):
        cached.cache_clear()


@pytest.fixture
def batch_id(world: World, issuer: Issuer) -> str:
    """A batch of the issuer's subject `demo`."""
    return world.put_batch(owner=session_owner(issuer.address, "demo"))


def ask(world: World, batch_id: str, token: str, *more: tuple[str, str]) -> Answer:
    return world.request("GET", progress_path(batch_id), [("Authorization", f"Bearer {token}"), *more])


def outcome(world: World, batch_id: str, token: str) -> tuple[int, str]:
    answer = ask(world, batch_id, token)
    return answer.status, "" if answer.status == 200 else answer.error["code"]


# For an issuer that does not answer in time.
FETCH_SECONDS = jwks.FETCH_SECONDS
GOOD = (200, "")
INVALID = (401, "TOKEN_INVALID")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token_of_each_algorithm(world: World, issuer: Issuer, batch_id: str, algorithm: str) -> None:
    (key,) = (key for key in issuer.keys if key.algorithm == algorithm)
    answer = ask(world, batch_id, issuer.token(key))
    assert 200 == answer.status
    assert batch_id == answer.data["batch_id"]


def test_the_issuer_is_asked_once_for_many_requests(world: World, issuer: Issuer, batch_id: str) -> None:
    """The keys are cached."""
    assert [GOOD] * 10 == [outcome(world, batch_id, issuer.token()) for _ in range(10)]
    assert [DISCOVERY, KEYS] == issuer.asked


def test_a_session_token_is_not_looked_up(world: World, issuer: Issuer, batch_id: str) -> None:
    """The tokens table is not read, whether the JWT is valid or not."""
    token = issuer.token()
    world.put_token(token, owner=unique("owner"))
    assert GOOD == outcome(world, batch_id, token)
    bad = issuer.token(aud="other")
    world.put_token(bad, owner=session_owner(issuer.address, "demo"))
    assert INVALID == outcome(world, batch_id, bad)


def test_other_tokens_go_the_opaque_way(world: World, issuer: Issuer) -> None:
    """As bearer token and as API key, with one dot and with three. The issuer is not asked."""
    batch_id = world.put_batch()
    for token in (unique("token"), f"one.{unique('two')}", f"a.b.c.{unique('d')}"):
        world.put_token(token)
        assert GOOD == outcome(world, batch_id, token)
    key = world.put_token(f"three.dotted.{unique('key')}")
    assert 200 == world.request("GET", progress_path(batch_id), [("X-API-Key", key)]).status
    assert [] == issuer.asked


def test_a_session_token_as_an_api_key_is_refused(world: World, issuer: Issuer, batch_id: str) -> None:
    """`X-API-Key` accepts opaque tokens only."""
    answer = world.request("GET", progress_path(batch_id), [("X-API-Key", issuer.token())])
    assert (401, "INVALID_API_KEY") == (answer.status, answer.error["code"])


def test_the_session_token_decides_beside_a_key(world: World, issuer: Issuer, batch_id: str) -> None:
    """The official SDK sends both. The API key is ignored, whether it is valid or not."""
    key = ("X-API-Key", world.put_token())
    assert 200 == ask(world, batch_id, issuer.token(), ("X-API-Key", "unknown-key")).status
    assert 401 == ask(world, world.put_batch(), issuer.token(aud="other"), key).status


# Owners


def test_a_session_owner_and_an_opaque_owner_of_one_name_are_different(
    world: World, issuer: Issuer, batch_id: str
) -> None:
    """Neither sees the other's batches."""
    opaque = world.put_batch(owner="demo")
    assert (404, "BATCH_NOT_FOUND") == outcome(world, opaque, issuer.token(sub="demo"))
    assert 404 == world.get(batch_id, "demo").status


def test_an_opaque_owner_who_calls_itself_as_a_session_owner_is_refused(
    world: World, issuer: Issuer, batch_id: str
) -> None:
    """If clients can choose their names, one could choose the name of a session owner."""
    token = world.put_token(owner=session_owner(issuer.address, "demo"))
    assert INVALID == outcome(world, batch_id, token)


def test_a_key_issued_for_a_session_owner_opens_the_same_batches(world: World, issuer: Issuer, batch_id: str) -> None:
    """Its item names the issuer: one client can use an API key in scripts and sessions for people."""
    key = world.put_token(owner="demo", issuer=issuer.address)
    assert 200 == world.request("GET", progress_path(batch_id), [("X-API-Key", key)]).status
    assert 404 == world.request("GET", progress_path(world.put_batch()), [("X-API-Key", key)]).status
    other = world.put_token(owner="demo", issuer="https://other.example.com")
    assert 404 == world.request("GET", progress_path(batch_id), [("X-API-Key", other)]).status


@pytest.mark.parametrize("subject", ["other", "Demo", "demo ", "demo#", "\ud800", "\x00", "d\u00e9mo", "x" * 1_024])
def test_each_subject_sees_their_own(world: World, issuer: Issuer, batch_id: str, subject: str) -> None:
    """For any subject, even a lone surrogate, which no table can store."""
    assert (404, "BATCH_NOT_FOUND") == outcome(world, batch_id, issuer.token(sub=subject))


def test_another_claim_may_name_the_owner(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, batch_id: str
) -> None:
    """The subject is then ignored."""
    monkeypatch.setenv("BATCH_PROGRESS_TOKEN_OWNER_CLAIM", "https://example.com/organisation")
    forget()
    organisation: dict[str, Any] = {"https://example.com/organisation": "demo"}
    assert GOOD == outcome(world, batch_id, issuer.token(sub=None, **organisation))
    assert GOOD == outcome(world, batch_id, issuer.token(sub=7, **organisation))
    assert (401, "TOKEN_MISSING_SUBJECT") == outcome(world, batch_id, issuer.token())


@pytest.mark.parametrize("subject", [None, "", 7, True, ["demo"], {"id": "demo"}, "x" * 1025])
def test_no_subject(world: World, issuer: Issuer, batch_id: str, subject: object) -> None:
    """A subject that is missing, empty or not a string is refused."""
    answer = ask(world, batch_id, issuer.token(sub=subject))
    assert (401, "TOKEN_MISSING_SUBJECT") == (answer.status, answer.error["code"])
    assert re.match(r'Bearer realm="[^"]*", ?error="invalid_token"', answer.headers["WWW-Authenticate"])


# Claims


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_the_audience_is_one_of_several(world: World, issuer: Issuer, batch_id: str, audience: object) -> None:
    assert GOOD == outcome(world, batch_id, issuer.token(aud=audience))


@pytest.mark.parametrize("audience", [None, "", "other", AUDIENCE.upper(), f"{AUDIENCE}/", [], ["other"], [7], 7, {}])
def test_another_audience(world: World, issuer: Issuer, batch_id: str, audience: object) -> None:
    """It must be present and match exactly."""
    assert INVALID == outcome(world, batch_id, issuer.token(aud=audience))


def test_several_audiences_of_a_deployment(
    world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, batch_id: str
) -> None:
    """The setting lists them, separated by commas: a user pool may have several clients."""
    monkeypatch.setenv("BATCH_PROGRESS_TOKEN_AUDIENCE", "web, mobile")
    forget()
    outcomes = [outcome(world, batch_id, issuer.token(aud=audience)) for audience in ("web", "mobile", "web, mobile")]
    assert [GOOD, GOOD, INVALID] == outcomes


def test_an_access_token_of_cognito(world: World, issuer: Issuer, batch_id: str) -> None:
    """Its audience is `client_id`, which counts only without `aud`."""
    of_cognito: dict[str, Any] = {"aud": None, "token_use": "access"}
    assert GOOD == outcome(world, batch_id, issuer.token(**of_cognito, client_id=AUDIENCE))
    assert INVALID == outcome(world, batch_id, issuer.token(**of_cognito, client_id="other"))
    assert INVALID == outcome(world, batch_id, issuer.token(aud="other", client_id=AUDIENCE))


@pytest.mark.parametrize("spelling", ["{}/", "{}#", "other{}", "", "https://other.example.com", None, 7])
def test_another_issuer(world: World, issuer: Issuer, batch_id: str, spelling: str | int | None) -> None:
    """It must match exactly, including a trailing slash."""
    name = spelling.format(issuer.address) if isinstance(spelling, str) else spelling
    assert INVALID == outcome(world, batch_id, issuer.token(iss=name))


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": -120}, (401, "TOKEN_EXPIRED")),
        ({"exp": -61}, (401, "TOKEN_EXPIRED")),
        ({"exp": -50}, GOOD),
        ({"nbf": 50}, GOOD),
        ({"nbf": 70}, INVALID),
        ({"nbf": -600}, GOOD),
        ({"iat": 600}, GOOD),  # `iat` is not checked
    ],
)
def test_times(world: World, issuer: Issuer, batch_id: str, claims: dict[str, int], expected: tuple[int, str]) -> None:
    """The clocks of issuer and function may differ by up to 60 seconds."""
    moments: dict[str, Any] = {name: int(time.time()) + seconds for name, seconds in claims.items()}
    assert expected == outcome(world, batch_id, issuer.token(**moments))


@pytest.mark.parametrize("expiry", [None, "soon", [], {}, float("nan"), float("inf")])
def test_a_token_without_a_valid_expiry(world: World, issuer: Issuer, batch_id: str, expiry: object) -> None:
    """A token without a valid `exp` is refused."""
    assert INVALID == outcome(world, batch_id, issuer.token(exp=expiry))


def test_expiry_is_checked_on_every_request(
    world: World, issuer: Issuer, batch_id: str, later: Callable[[float], None]
) -> None:
    """There are 60 seconds of leeway."""
    token = issuer.token(exp=int(time.time()) + 100)
    later(150)
    assert GOOD == outcome(world, batch_id, token)
    later(161)
    assert (401, "TOKEN_EXPIRED") == outcome(world, batch_id, token)


def test_a_token_that_is_long(world: World, issuer: Issuer, batch_id: str) -> None:
    """Up to 8,192 characters. A longer one is refused without parsing it."""
    fits = issuer.token(groups="x" * 5_500)
    assert 7_500 < len(fits) <= 8_192
    assert GOOD == outcome(world, batch_id, fits)
    assert INVALID == outcome(world, batch_id, issuer.token(groups="x" * 10_240))
    exact = next(t for n in range(5_800, 6_000) if len(t := issuer.token(groups="x" * n)) >= 8_192)
    assert [GOOD, INVALID][len(exact) > 8_192] == outcome(world, batch_id, exact)


# Signatures


def test_a_token_without_a_signature(world: World, issuer: Issuer, batch_id: str) -> None:
    """`alg: none` in every spelling, with and without a signature."""
    for name in ("none", "None", "NONE", ""):
        for signature in (b"", b"x"):
            assert INVALID == outcome(world, batch_id, unsigned({"alg": name}, issuer.claims(), signature))
    whole = issuer.token()
    assert INVALID == outcome(world, batch_id, whole.rpartition(".")[0] + ".")


def test_a_token_signed_with_the_public_key_as_a_secret(world: World, issuer: Issuer, batch_id: str) -> None:
    """The best known attack: HS256 with the published key as its secret, in each format of the key."""
    public = issuer.keys[0].private.public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(issuer.keys[0].jwk).encode(),
    ]
    for secret in forms:
        header = {"alg": "HS256", "kid": issuer.keys[0].kid}
        signed = unsigned(header, issuer.claims()).removesuffix(".")
        signature = hmac.digest(secret, signed.encode(), hashlib.sha256)
        assert INVALID == outcome(world, batch_id, f"{signed}.{encoded(signature)}")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "HS512", "ES384", "rs256", 7, None, ["RS256"]])
def test_another_algorithm(world: World, issuer: Issuer, batch_id: str, algorithm: object) -> None:
    """Only three algorithms are accepted, and a key only with its own."""
    _, claims, signature = issuer.token().split(".")
    header = encoded(json.dumps({"alg": algorithm, "kid": issuer.keys[0].kid}).encode())
    assert INVALID == outcome(world, batch_id, f"{header}.{claims}.{signature}")


def test_an_algorithm_of_another_kind_of_key(world: World, issuer: Issuer, batch_id: str) -> None:
    rsa, ec, ed = issuer.keys
    for signed_by, named in ((rsa, ec), (ec, ed), (ed, rsa)):
        assert INVALID == outcome(world, batch_id, issuer.token(signed_by, {"kid": named.kid}))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_another_key_under_a_known_id(world: World, issuer: Issuer, batch_id: str, algorithm: str) -> None:
    (known,) = (key for key in issuer.keys if key.algorithm == algorithm)
    assert INVALID == outcome(world, batch_id, issuer.token(SigningKey.make(algorithm, known.kid)))


def test_claims_that_were_changed(world: World, issuer: Issuer, batch_id: str) -> None:
    """A change of any part invalidates the signature."""
    header, claims, signature = issuer.token().split(".")
    changed = encoded(json.dumps(issuer.claims(sub="root")).encode())
    assert INVALID == outcome(world, batch_id, f"{header}.{changed}.{signature}")
    for parts in ((header, claims, signature[:-2]), (header, claims, signature[::-1]), (header, "", signature)):
        assert INVALID == outcome(world, batch_id, ".".join(parts))


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/etc/passwd",
        "https://attacker.example.com/key",
        "' OR 1=1 --",
        "unknown",
        "",
        "x" * 900,
    ],
)
def test_a_key_id_is_only_compared(world: World, issuer: Issuer, batch_id: str, kid: str) -> None:
    """It is never used as a path, URL or query. A token with an unknown key id is refused."""
    assert INVALID == outcome(world, batch_id, issuer.token(header={"kid": kid}))
    assert {DISCOVERY, KEYS} == set(issuer.asked)


@pytest.mark.parametrize("kid", [7, None, [], {}])
def test_a_key_id_that_is_not_a_string(world: World, issuer: Issuer, batch_id: str, kid: object) -> None:
    token = unsigned({"alg": "RS256", "kid": kid}, issuer.claims(), b"x" * 256)
    assert INVALID == outcome(world, batch_id, token)


def test_keys_that_a_token_brings_along(world: World, issuer: Issuer, batch_id: str) -> None:
    """`jku`, `x5u`, `jwk` and `x5c` are ignored, in forged and in valid tokens."""
    with issuing() as attacker:
        forged = SigningKey.make("ES256")
        attacker.keys = [forged]
        header: dict[str, Any] = {
            "jku": attacker.address + KEYS,
            "x5u": attacker.address + KEYS,
            "jwk": forged.jwk,
            "x5c": ["MIIB"],
        }
        assert INVALID == outcome(world, batch_id, issuer.token(forged, header))
        assert INVALID == outcome(world, batch_id, issuer.token(forged, header | {"kid": issuer.keys[1].kid}))
        assert GOOD == outcome(world, batch_id, issuer.token(header=header))
        assert [] == attacker.asked


def test_a_critical_extension_that_is_not_known(world: World, issuer: Issuer, batch_id: str) -> None:
    """RFC 7515, section 4.1.11: an unknown critical extension must be refused."""
    headers: list[dict[str, Any]] = [{"crit": ["exp"], "exp": 1}, {"crit": ["b64"], "b64": False}, {"crit": "b64"}]
    for header in [*headers, {"crit": []}]:
        token = unsigned({"alg": "RS256", "kid": issuer.keys[0].kid} | header, issuer.claims(), b"x" * 256)
        assert INVALID == outcome(world, batch_id, token)
    assert INVALID == outcome(world, batch_id, issuer.token(header={"crit": ["x"], "x": 1}))


@pytest.mark.parametrize(
    ("typ", "expected"),
    [
        ("JWT", GOOD),
        ("at+jwt", GOOD),
        ("application/at+JWT", GOOD),
        (None, GOOD),
        ("logout+jwt", INVALID),
        (7, INVALID),
    ],
)
def test_types(world: World, issuer: Issuer, batch_id: str, typ: object, expected: tuple[int, str]) -> None:
    """A JWT for another purpose is refused, although its signature is valid (RFC 8725, section 3.11)."""
    if typ == 7:
        assert expected == outcome(world, batch_id, unsigned({"alg": "RS256", "typ": 7}, issuer.claims(), b"x" * 256))
    else:
        assert expected == outcome(world, batch_id, issuer.token(header={"typ": typ}))


@pytest.mark.parametrize(
    "token",
    [
        "..",
        "a..",
        "a.b.c",
        ".b.c",
        "a..c",
        "e30.e30.e30",
        "bnVsbA.e30.e30",
        "W10.e30.e30",
        "_w.e30.e30",
        "eyJhbGciOiJSUzI1NiJ9.e30.!!!!",
        "eyJhbGciOiJSUzI1NiJ9.e30=.e30=",
        f"{encoded(b'[' * 5_000)}.e30.e30",
        f"{encoded(json.dumps({'alg': 'RS256'}).encode() + b'{}')}.e30.e30",
    ],
)
def test_what_only_has_two_dots(world: World, issuer: Issuer, batch_id: str, token: str) -> None:
    """A 401, never a 500."""
    assert INVALID == outcome(world, batch_id, token)
    del issuer


def test_claims_that_are_no_object(world: World, issuer: Issuer, batch_id: str) -> None:
    """Their signature is valid: an issuer may sign other payloads with the same key."""
    key = issuer.keys[0]
    for payload in (b"[]", b"null", b"7", b"", b"\xff", b"[" * 4_000):
        assert INVALID == outcome(world, batch_id, signed(key, payload, {"kid": key.kid}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
CLAIM_NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "sub", "client_id", "iat", "jti"])
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "x5u", "x5c", "jwk", "cty"])


@given(
    header=st.dictionaries(HEADER_NAMES, JSON, max_size=4),
    claims=st.dictionaries(CLAIM_NAMES, JSON, max_size=4),
    signs=st.booleans(),
)
@hypothesis_settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_token_says_it_gets_an_answer(
    issuer: Issuer, header: dict[str, Any], claims: dict[str, Any], *, signs: bool
) -> None:
    """Any JSON in any header parameter and claim, signed or not, is either refused or has an owner."""
    sessions = app._sessions()
    key = issuer.keys[1]
    names = {"alg": key.algorithm, "kid": key.kid} | header
    begun = f"{encoded(json.dumps(names).encode())}.{encoded(json.dumps(issuer.claims() | claims).encode())}"
    algorithm: Any = jwt.get_algorithm_by_name(key.algorithm)
    signature = algorithm.sign(begun.encode(), key.private) if signs else b"x" * 64
    try:
        owner = sessions.owner(f"{begun}.{encoded(signature)}", time.time())
    except CredentialRefused:
        return
    assert signs
    assert session_owner(issuer.address, claims.get("sub", "demo")) == owner


# Keys


def test_new_keys_in_mid_flight(world: World, issuer: Issuer, batch_id: str) -> None:
    """A token with a new key makes the function fetch the keys. Old keys stay valid while they are published."""
    old, new = issuer.keys[0], SigningKey.make("RS256")
    assert GOOD == outcome(world, batch_id, issuer.token(old))
    issuer.keys = [old, new]
    assert [GOOD] * 3 == [outcome(world, batch_id, issuer.token(key)) for key in (new, old, new)]
    assert [DISCOVERY, KEYS] * 2 == issuer.asked


def test_unknown_keys_make_it_ask_once_a_minute(world: World, issuer: Issuer, batch_id: str) -> None:
    """A flood of unknown key ids does not become a flood of requests, and valid tokens are accepted meanwhile."""
    assert GOOD == outcome(world, batch_id, issuer.token())
    for number in range(20):
        assert INVALID == outcome(world, batch_id, issuer.token(header={"kid": f"made-up-{number}"}))
    assert [DISCOVERY, KEYS] * 2 == issuer.asked
    assert GOOD == outcome(world, batch_id, issuer.token())


def test_a_minute_later_it_may_ask_again(issuer: Issuer) -> None:
    keys = jwks.IssuerKeys(issuer.address)
    now = time.time()
    keys.find(issuer.keys[0].kid, "RS256", now)
    for seconds in (0, 59, 60, 61, 119, 120):
        new = SigningKey.make("ES256")
        issuer.keys = [*issuer.keys, new]
        if seconds in {0, 60, 120}:
            assert new.kid == keys.find(new.kid, "ES256", now + seconds).key_id
        else:
            with pytest.raises(TokenInvalid):
                keys.find(new.kid, "ES256", now + seconds)


def test_a_key_that_was_taken_back_is_refused_within_the_hour(issuer: Issuer) -> None:
    keys = jwks.IssuerKeys(issuer.address)
    now = time.time()
    gone = issuer.keys[0]
    keys.find(gone.kid, gone.algorithm, now)
    issuer.keys = issuer.keys[1:]
    keys.find(gone.kid, gone.algorithm, now + 3_599)
    with pytest.raises(TokenInvalid):
        keys.find(gone.kid, gone.algorithm, now + 3_600)


def test_keys_are_used_for_as_long_as_the_issuer_is_away(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """Known keys work for an hour and for a day. The failure is logged at most once a minute."""
    keys = jwks.IssuerKeys(issuer.address)
    now, key = time.time(), issuer.keys[0]
    keys.find(key.kid, key.algorithm, now)
    issuer.status = 503
    for seconds in (3_600, 3_601, 3_659, 86_400):
        assert key.kid == keys.find(key.kid, key.algorithm, now + seconds).key_id
    assert 4 == len(issuer.asked), issuer.asked
    assert 2 == len(caplog.records)
    assert all("the cached ones stay in use" in record.getMessage() for record in caplog.records)
    issuer.status = 200
    assert key.kid == keys.find(key.kid, key.algorithm, now + 86_500).key_id
    assert 2 == len(caplog.records)


def test_a_clock_that_was_set_back_does_not_stop_it_from_asking(issuer: Issuer) -> None:
    keys = jwks.IssuerKeys(issuer.address)
    now = time.time()
    keys.find(issuer.keys[0].kid, "RS256", now)
    issuer.keys = [*issuer.keys, SigningKey.make("ES256")]
    keys.find(issuer.keys[-1].kid, "ES256", now)
    issuer.keys = [*issuer.keys, SigningKey.make("ES256")]
    assert issuer.keys[-1].kid == keys.find(issuer.keys[-1].kid, "ES256", now - 86_400).key_id


def test_a_token_without_a_key_id(world: World, issuer: Issuer, batch_id: str) -> None:
    """Accepted if exactly one key fits."""
    token = issuer.token(header={"kid": None})
    assert GOOD == outcome(world, batch_id, token)
    issuer.keys = [*issuer.keys, SigningKey.make("RS256")]
    forget()
    assert INVALID == outcome(world, batch_id, token)


def test_keys_that_are_not_for_signatures_or_not_understood(world: World, issuer: Issuer, batch_id: str) -> None:
    """Providers publish such keys, too. They are ignored."""
    encrypting = SigningKey.make("RS256", use="enc")
    issuer.extra_keys = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {"kty": "RSA", "kid": "cut", "n": "AQAB"},
        {"kty": "RSA", "kid": "bad", "n": "!", "e": 7},
        {"kty": "AKP", "kid": "new", "alg": "ML-DSA-44", "pub": "AA"},
        {"kty": "RSA", "kid": "oaep", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"},
        {"kid": "bare"},
        encrypting.jwk,
        7,
    ]
    assert GOOD == outcome(world, batch_id, issuer.token())
    assert INVALID == outcome(world, batch_id, issuer.token(encrypting))


def test_a_key_that_is_too_short(world: World, issuer: Issuer, batch_id: str) -> None:
    """An RSA key of 1,024 bits is not accepted (RFC 7518, section 3.3)."""
    short = SigningKey.make("RS256", bits=1024)
    issuer.keys = [short]
    with pytest.warns(match="1024 bits"):
        token = issuer.token(short)
    assert INVALID == outcome(world, batch_id, token)


# A failing issuer


def unavailable(world: World, batch_id: str, token: str) -> None:
    """Check the answer to a token whose issuer fails while no keys are cached: a 503 that does not wait for it."""
    began = time.monotonic()
    answer = ask(world, batch_id, token)
    assert (503, "SERVICE_UNAVAILABLE") == (answer.status, answer.error["code"])
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert "WWW-Authenticate" not in answer.headers
    # Issuers that hang or trickle do so for a minute.
    assert time.monotonic() - began < 30


BAD_DAYS: dict[str, dict[str, Any]] = {
    "answers 500": {"status": 500},
    "answers 404": {"status": 404},
    "answers 204": {"status": 204, "body": b""},
    "sends 50 MB": {"huge": True},
    "sends a page": {"body": b"<html>Please log in</html>"},
    "sends nothing": {"body": b""},
    "sends another encoding": {"body": b"\xff\xfe{}"},
    "sends a list": {"body": b"[]"},
    "sends no keys": {"body": b'{"issuer": "x"}'},
    "is cut": {"headers": {"Content-Length": "100000"}},
    "hangs": {"hangs": True},
}


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_failing_issuer_is_a_503_until_two_seconds_after_it_recovered(
    world: World, issuer: Issuer, batch_id: str, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that may be valid is never a 401. For two seconds after a failure the issuer is not asked again."""
    failed_at = time.monotonic()
    monkeypatch.setattr(jwks, "monotonic", lambda: failed_at)
    before = {name: getattr(issuer, name) for name in BAD_DAYS[day]}
    for name, value in BAD_DAYS[day].items():
        setattr(issuer, name, value)
    with monkeypatch.context() as during:
        during.setattr(jwks, "FETCH_SECONDS", FETCH_SECONDS if issuer.hangs else jwks.FETCH_SECONDS)
        unavailable(world, batch_id, issuer.token())
    for name, value in before.items():
        setattr(issuer, name, value)
    asked = len(issuer.asked)
    for seconds in (0, jwks.PAUSE_SECONDS - 0.1):
        monkeypatch.setattr(jwks, "monotonic", lambda now=failed_at + seconds: now)
        unavailable(world, batch_id, issuer.token())
    assert asked == len(issuer.asked)
    monkeypatch.setattr(jwks, "monotonic", lambda: failed_at + jwks.PAUSE_SECONDS + 0.1)
    assert GOOD == outcome(world, batch_id, issuer.token())


def test_junk_tokens_do_not_keep_the_function_busy_with_an_issuer_that_hangs(
    world: World, issuer: Issuer, batch_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand made-up tokens one waits for the issuer; the others are answered at once."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.1)
    monkeypatch.setattr(jwks, "PAUSE_SECONDS", 3_600)
    issuer.hangs = True
    token = issuer.token(header={"kid": "made-up"}).rpartition(".")[0]
    for number in range(1_000):
        assert 503 == ask(world, batch_id, f"{token}.{encoded(b'%d' % number)}").status
    assert [DISCOVERY] == issuer.asked


@pytest.mark.parametrize("day", BAD_DAYS)
def test_a_failing_issuer_affects_neither_known_keys_nor_api_keys(
    world: World, issuer: Issuer, batch_id: str, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens signed with a known key, and API keys, are accepted without asking the issuer."""
    assert GOOD == outcome(world, batch_id, issuer.token())
    for name, value in BAD_DAYS[day].items():
        setattr(issuer, name, value)
    if issuer.hangs:
        monkeypatch.setattr(jwks, "FETCH_SECONDS", 0.1)
    # An unknown key id makes the function ask the issuer.
    assert INVALID == outcome(world, batch_id, issuer.token(header={"kid": "unknown"}))
    asked = len(issuer.asked)
    assert GOOD == outcome(world, batch_id, issuer.token())
    assert 200 == world.get(world.put_batch()).status
    assert asked == len(issuer.asked)


def test_an_issuer_that_trickles(world: World, issuer: Issuer, batch_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte arrives in time, but the whole document does not."""
    monkeypatch.setattr(jwks, "FETCH_SECONDS", FETCH_SECONDS)
    original = issuer.answer

    def answer(handler: Any) -> None:  # noqa: ANN401  # the server's
        issuer.asked.append(handler.path)
        handler.send_response(200)
        handler.end_headers()
        for _ in range(600):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    issuer.answer = answer  # type: ignore[method-assign]  # another way to answer
    unavailable(world, batch_id, issuer.token())
    issuer.answer = original  # type: ignore[method-assign]  # the right one


def test_an_issuer_that_is_not_there(world: World, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PROGRESS_TOKEN_ISSUER", "http://127.0.0.1:1")
    forget()
    unavailable(world, world.put_batch(), issuer.token(iss="http://127.0.0.1:1"))


def test_an_issuer_that_calls_itself_otherwise(world: World, issuer: Issuer, batch_id: str) -> None:
    """OpenID Connect Discovery 1.0, section 4.3: the document must name the issuer exactly."""
    issuer.discovery["issuer"] = f"{issuer.address}/"
    unavailable(world, batch_id, issuer.token())


def test_a_redirect_is_not_followed(world: World, issuer: Issuer, batch_id: str) -> None:
    """Keys come from the issuer, or from the URL in its own document."""
    with issuing() as other:
        issuer.status, issuer.headers = 302, {"Location": other.address + DISCOVERY}
        unavailable(world, batch_id, issuer.token())
        assert [] == other.asked


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/keys", "keys", "", "http:///"])
def test_keys_at_an_odd_address(world: World, issuer: Issuer, batch_id: str, address: str) -> None:
    issuer.discovery["jwks_uri"] = address
    unavailable(world, batch_id, issuer.token())


def test_what_went_wrong_is_in_the_log_and_no_token(
    world: World, issuer: Issuer, batch_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the reason and no token."""
    issuer.status = 500
    token = issuer.token()
    with caplog.at_level(logging.DEBUG):
        unavailable(world, batch_id, token)
    (record,) = [record for record in caplog.records if record.name == jwks.__name__]
    assert (
        f"The keys of the token issuer {issuer.address} could not be fetched, and none are cached"
        in record.getMessage()
    )
    assert "status 500" in record.getMessage()
    signature = token.rpartition(".")[2]
    assert not any(signature in record.getMessage() for record in caplog.records)


# The deployment


def test_without_an_issuer_three_parts_are_an_opaque_token(world: World) -> None:
    """Without the setting, a token with two dots is looked up as an opaque one."""
    forget()
    token = world.put_token(f"one.two.{unique('three')}")
    assert GOOD == outcome(world, world.put_batch(), token)


LOADED = """
import json, sys
from tests.integration.world import Context
from functions.progress.app import handler
handler(json.load(sys.stdin), Context(60))
dear = {"jwt", "cryptography", "batch_progress.jwt", "batch_progress.jwks"}
print("answer:" + json.dumps(sorted(dear & set(sys.modules))))
"""


@pytest.mark.parametrize("scheme", ["key", "bearer", "session"])
def test_cryptography_is_imported_for_a_session_token_alone(world: World, issuer: Issuer, scheme: str) -> None:
    """A cold start without a session token does not import it."""
    token = world.put_token()
    header = {
        "key": ("X-API-Key", token),
        "bearer": ("Authorization", f"Bearer {token}"),
        "session": ("Authorization", f"Bearer {issuer.token()}"),
    }[scheme]
    asked = json.dumps(event("GET", progress_path(world.put_batch()), [header]))
    done = subprocess.run(  # noqa: S603  # this interpreter, and the text above
        [sys.executable, "-c", LOADED], input=asked, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.rpartition("answer:")[2])
    assert (
        ["batch_progress.jwks", "batch_progress.jwt", "cryptography", "jwt"] if scheme == "session" else []
    ) == loaded


@pytest.mark.parametrize(
    "environment",
    [
        {"BATCH_PROGRESS_TOKEN_AUDIENCE": None},
        {"BATCH_PROGRESS_TOKEN_AUDIENCE": " , "},
        {"BATCH_PROGRESS_TOKEN_ISSUER": "http://issuer.example.com"},
        {"BATCH_PROGRESS_TOKEN_ISSUER": "issuer.example.com"},
        {"BATCH_PROGRESS_TOKEN_ISSUER": "https://issuer.example.com?tenant=1"},
    ],
)
def test_an_unsafe_issuer_setting_is_a_500(
    world: World,
    issuer: Issuer,
    batch_id: str,
    environment: dict[str, str | None],
    deploy: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An issuer without an audience, or over plain HTTP, is a 500. The log names the setting."""
    deploy(**environment)
    answer = ask(world, batch_id, issuer.token())
    assert (500, "INTERNAL_ERROR") == (answer.status, answer.error["code"])
    assert next(iter(environment)) in caplog.text
