"""Rules about an issuer's keys that a server on loopback cannot test."""

import json
import time

import pytest

from batch_progress import dynamodb
from batch_progress.errors import ServiceUnavailable
from batch_progress.jwks import IssuerKeys

ISSUER = "https://issuer.example.com/tenant"


class Documents(IssuerKeys):
    """Keys from given documents, without a server."""

    def __init__(self, jwks_uri: str) -> None:
        """Take the address of the keys, as in the issuer's document."""
        super().__init__(ISSUER)
        self._jwks_uri = jwks_uri
        self.asked: list[str] = []

    def _get(self, address: str, until: float) -> bytes:
        del until
        self.asked.append(address)
        return json.dumps({"issuer": ISSUER, "jwks_uri": self._jwks_uri, "keys": []}).encode()


@pytest.mark.parametrize("scheme", ["http", "file", "ftp", ""])
def test_keys_that_are_not_behind_tls_are_not_asked_for(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without TLS an attacker could replace the keys. Only an issuer on loopback may use HTTP."""
    keys = Documents(f"{scheme}://issuer.example.com/keys")
    with pytest.raises(ServiceUnavailable):
        keys.find("kid", "RS256", time.time())
    assert [f"{ISSUER}/.well-known/openid-configuration"] == keys.asked
    assert "its jwks_uri is not an https URL" in caplog.text


def test_keys_of_another_host_may_be_asked_for() -> None:
    """Some providers do so. The URL, including its query, comes from the issuer's own document."""
    address = "https://keys.example.net/discovery/keys?p=sign-in"
    keys = Documents(address)
    with pytest.raises(ServiceUnavailable):  # no keys are known
        keys.find("kid", "RS256", time.time())
    assert address == keys.asked[-1]


def test_a_request_that_is_out_of_time_does_not_begin_to_ask(caplog: pytest.LogCaptureFixture) -> None:
    """The function's deadline applies to the issuer, too: a 503 in time, not a 504."""
    keys = IssuerKeys("http://127.0.0.1:1")
    with dynamodb.deadline(time.monotonic() - 1), pytest.raises(ServiceUnavailable):
        keys.find("kid", "RS256", time.time())
    assert "no time is left for the request" in caplog.text
