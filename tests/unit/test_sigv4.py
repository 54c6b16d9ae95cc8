"""Signatures: the same `Authorization` header as botocore's signer makes."""

import random
from datetime import UTC, datetime

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials

from batch_progress.sigv4 import Credentials, authorization

REQUESTS = 10_000
SEED = 1
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
ANY_TEXT = LETTERS + ' "\\{}[]:,\t\n' + "éß漢字😀\u0000\u200d"
REGIONS = ("eu-central-1", "us-east-1", "us-gov-west-1", "cn-north-1", "ap-southeast-3")
HOSTS = ("dynamodb.eu-central-1.amazonaws.com", "127.0.0.1:8000", "localhost:4566", "[::1]:8000", "vpce-1.example.com")


def text(random_: random.Random, letters: str, longest: int) -> str:
    return "".join(random_.choices(letters, k=random_.randint(0, longest)))


def test_ten_thousand_random_requests_are_signed_as_botocore_signs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any key, session token, region, host, time, operation and body."""
    random_ = random.Random(SEED)  # noqa: S311  # test data
    for _ in range(REQUESTS):
        token = text(random_, LETTERS + "=", 900) or None
        credentials = Credentials("A" + text(random_, LETTERS, 127), "s" + text(random_, LETTERS, 80), token)
        region, host = random_.choice(REGIONS), random_.choice(HOSTS)
        body = text(random_, ANY_TEXT, 400).encode()
        now = datetime.fromtimestamp(random_.randrange(2**32), UTC)
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": host,
            "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
            **({"x-amz-security-token": token} if token else {}),
            "x-amz-target": "DynamoDB_20120810." + random_.choice(["Query", "GetItem", "UpdateItem"]),
        }
        request = AWSRequest(
            "POST",
            f"https://{host}/",
            {name: value for name, value in headers.items() if name in {"content-type", "x-amz-target"}},
            body,
        )
        monkeypatch.setattr(auth, "get_current_datetime", lambda now=now: now)
        auth.SigV4Auth(BotocoreCredentials(*credentials), "dynamodb", region).add_auth(request)
        ours = authorization(credentials, "dynamodb", region, headers["x-amz-date"], headers, body)
        assert request.headers["Authorization"] == ours


def test_blanks_in_a_header_count_as_one() -> None:
    """Signature Version 4 trims values and folds runs of blanks."""
    credentials = Credentials("key", "secret", None)
    folded, as_sent = (
        authorization(credentials, "dynamodb", "eu-central-1", "20241216T103100Z", {"host": host}, b"")
        for host in ("a b", "  a \t b ")
    )
    assert folded == as_sent
