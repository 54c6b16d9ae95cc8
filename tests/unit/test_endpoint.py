"""The endpoint and the keys: in every environment the same as botocore itself would use."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from batch_progress import endpoint
from batch_progress.errors import ConfigurationError

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "secret"}
LAMBDA = KEYS | {"AWS_SESSION_TOKEN": "a-token", "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}
CONFIGURATION = """
[profile work]
region = eu-west-3
aws_access_key_id = AKIAPROFILE
aws_secret_access_key = secret
services = here
[services here]
dynamodb =
  endpoint_url = http://127.0.0.1:8001
[default]
region = us-west-2
use_fips_endpoint = true
"""


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def changed(environment: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in environment.items() if LAMBDA.get(name) != value)


def called_by_botocore() -> tuple[str, str, str, str | None]:
    """Return the URL, access key, region and session token of a request that botocore is about to send."""
    session = botocore.session.Session()
    # If botocore knows the account, it uses the account's own endpoint; our client does not.
    config = Config(account_id_endpoint_mode="disabled")
    client = session.create_client("dynamodb", region_name=session.get_config_variable("region"), config=config)
    sent: list[Any] = []

    def answer(request: Any, **_: object) -> AWSResponse:  # noqa: ANN401  # botocore ships no types
        sent.append(request)
        return AWSResponse(request.url, 200, {}, type("Body", (), {"stream": lambda _: [b"{}"]})())

    client.meta.events.register("before-send.dynamodb", answer)
    client.get_item(TableName="JobsTable", Key={"batch_id": {"S": "b"}})
    header = sent[0].headers["Authorization"].decode()
    scope = re.search(r"Credential=([^/]+)/[0-9]+/([^/]+)/dynamodb/", header)
    assert scope
    token = sent[0].headers.get("X-Amz-Security-Token")
    return sent[0].url, scope[1], scope[2], token.decode() if isinstance(token, bytes) else token


def called_by_us() -> tuple[str, str, str, str | None]:
    found = endpoint.find()
    credentials = found.credentials()
    url = f"{'https' if found.secure else 'http'}://{found.host_header}/"
    return url, credentials.access_key, found.region, credentials.token


@pytest.mark.parametrize(
    "environment",
    [
        LAMBDA,
        KEYS | {"AWS_DEFAULT_REGION": "us-east-1"},
        LAMBDA | {"AWS_SESSION_TOKEN": ""},
        LAMBDA | {"AWS_SECURITY_TOKEN": "an-older-name"},
        *(
            LAMBDA | {"AWS_DEFAULT_REGION": region}
            for region in ("cn-north-1", "us-gov-west-1", "us-iso-east-1", "il-central-1")
        ),
        LAMBDA | {"AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000"},
        LAMBDA | {"AWS_ENDPOINT_URL": "http://localhost:4566/"},
        LAMBDA | {"AWS_ENDPOINT_URL": "http://localhost:4566", "AWS_ENDPOINT_URL_DYNAMODB": "https://vpce.example.com"},
        LAMBDA | {"AWS_ENDPOINT_URL_DYNAMODB": "", "AWS_ENDPOINT_URL": ""},
        LAMBDA | {"AWS_ENDPOINT_URL": "http://localhost:4566", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        LAMBDA | {"AWS_USE_FIPS_ENDPOINT": "true"},
        LAMBDA | {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        LAMBDA | {"AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_DEFAULT_REGION": "cn-northwest-1"},
        LAMBDA | {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_DEFAULT_REGION": "us-gov-east-1"},
    ],
    ids=changed,
)
def test_an_environment_means_what_it_means_to_botocore(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Our client uses the same URL, keys and region, with or without the help of botocore."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert called_by_botocore() == called_by_us()


@pytest.mark.parametrize(
    "environment",
    [KEYS, KEYS | {"AWS_PROFILE": "work"}, {"AWS_PROFILE": "work"}, LAMBDA, {"AWS_DEFAULT_PROFILE": "work"}],
    ids=lambda environment: " ".join(environment) or "nothing",
)
def test_a_configuration_file_means_what_it_means_to_botocore(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]
) -> None:
    """Region, endpoint, FIPS and keys of a profile; keys in the environment still come first."""
    (tmp_path / "config").write_text(CONFIGURATION)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert called_by_botocore() == called_by_us()


def test_a_plain_environment_needs_no_botocore() -> None:
    """Importing it takes half of a cold start."""
    code = "import sys; from batch_progress import dynamodb; dynamodb.client(); print('botocore' in sys.modules)"
    environment = {**os.environ, **LAMBDA}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    assert "False\n" == done.stdout


# Container credentials: what a function with SnapStart has instead of keys


class _Keys(BaseHTTPRequestHandler):
    """Returns new keys to each request. They last 16 minutes: botocore renews keys 15 minutes before they expire."""

    handed_out = 0
    lasts = timedelta(minutes=16)

    def do_GET(self) -> None:
        assert "a-secret" == self.headers["Authorization"]
        type(self).handed_out += 1
        body = {
            "AccessKeyId": f"AKIACONTAINER{self.handed_out}",
            "SecretAccessKey": "secret",
            "Token": "container-token",
            "Expiration": (datetime.now(UTC) + self.lasts).isoformat(),
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Keys]]:
    keys = type("Keys", (_Keys,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), keys)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/keys")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    yield keys
    server.shutdown()
    server.server_close()
    thread.join()


def test_container_credentials_are_kept_while_they_last(container: type[_Keys]) -> None:
    found = endpoint.find()
    assert ["AKIACONTAINER1"] * 3 == [found.credentials().access_key for _ in range(3)]
    assert "container-token" == found.credentials().token
    assert 1 == container.handed_out


def test_container_credentials_are_renewed_before_they_expire(container: type[_Keys]) -> None:
    """Here the credentials are always about to expire, so each request fetches new ones."""
    container.lasts = timedelta(minutes=1)
    found = endpoint.find()
    first, second = found.credentials(), found.credentials()
    assert first.access_key != second.access_key


# What cannot be


def test_no_credentials_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises(ConfigurationError, match="no AWS credentials"):
        endpoint.find()


def test_no_region_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="region"):
        endpoint.find()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://localhost:x",
        "http://h/path",
        "http://h?q",
        "http://h#f",
        "htps://h:8000",
        "http://h:0",
        "http://a..b",
        "http://a b",
    ],
)
def test_an_endpoint_that_is_no_url_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name, value in (LAMBDA | {"AWS_ENDPOINT_URL_DYNAMODB": url}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(repr(url))):
        endpoint.find()


# Proxies


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({"HTTPS_PROXY": "http://proxy.example.com:3128"}, ("proxy.example.com", 3128)),
        ({"https_proxy": "proxy.example.com:3128"}, ("proxy.example.com", 3128)),
        ({"HTTPS_PROXY": "http://proxy.example.com"}, ("proxy.example.com", 80)),
        ({"HTTP_PROXY": "http://proxy.example.com:3128"}, None),
        ({"HTTPS_PROXY": "http://proxy.example.com:3128", "NO_PROXY": ".amazonaws.com"}, None),
        ({"HTTPS_PROXY": "http://proxy.example.com:3128", "NO_PROXY": "example.org"}, ("proxy.example.com", 3128)),
    ],
)
def test_the_environments_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: tuple[str, int] | None
) -> None:
    for name, value in (LAMBDA | environment).items():
        monkeypatch.setenv(name, value)
    found = endpoint.find().proxy
    assert proxy == (found and (found.host, found.port))


def test_a_proxy_is_shown_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAMBDA | {"HTTPS_PROXY": "http://me:p%40ss@proxy:3128"}).items():
        monkeypatch.setenv(name, value)
    found = endpoint.find().proxy
    assert found
    assert {"Proxy-Authorization": "Basic bWU6cEBzcw=="} == found.headers


def test_a_proxy_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAMBDA | {"HTTPS_PROXY": "socks5://proxy:1080"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="proxy for https"):
        endpoint.find()


@pytest.mark.parametrize("proxy", ["http://proxy:abc", "http://[::1", "http://proxy:99999"])
def test_a_proxy_that_is_no_url_is_an_error(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name, value in (LAMBDA | {"HTTPS_PROXY": proxy}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="proxy for https"):
        endpoint.find()


def test_a_password_in_an_endpoint_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (LAMBDA | {"AWS_ENDPOINT_URL": "http://me:secret@localhost:8000"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        endpoint.find()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "configuration"),
    [
        ({"AWS_PROFILE": "missing"}, CONFIGURATION),
        ({}, "not a configuration file"),
        ({"AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}, None),
    ],
)
def test_what_botocore_cannot_resolve_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str], configuration: str | None
) -> None:
    """A missing profile, a broken file, expired keys."""
    if configuration is not None:
        (tmp_path / "config").write_text(configuration)
    for name, value in (LAMBDA | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError):
        endpoint.find()


def test_a_line_break_in_a_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the header that it stands in."""
    for name, value in (LAMBDA | {"AWS_SESSION_TOKEN": "a-token\r\nX-Other: 1"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="control character"):
        endpoint.find()


def test_credentials_that_cannot_be_renewed_are_unavailable(container: type[_Keys]) -> None:
    """That is an outage, not a wrong configuration: they were there before."""
    container.lasts = timedelta(minutes=1)
    found = endpoint.find()
    container.lasts = timedelta(minutes=-1)
    with pytest.raises(endpoint.CredentialsUnavailable):
        found.credentials()
