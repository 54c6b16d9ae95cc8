"""Find DynamoDB's endpoint and credentials: the same ones as botocore, usually without importing it.

A Lambda function has its keys and its region in environment variables, and standard endpoints have a simple name: no
more is needed. Everything else (a configuration file, a profile, container credentials as SnapStart uses them, FIPS and
dual-stack endpoints, rare partitions) is resolved by botocore, which is imported only then. In both cases
`AWS_ENDPOINT_URL_DYNAMODB` and `AWS_ENDPOINT_URL` are used, unless they are empty.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec

from batch_progress.errors import ConfigurationError
from batch_progress.sigv4 import Credentials

SERVICE: Final = "dynamodb"
_HTTPS_PORT: Final = 443
_PORTS: Final = {"http": 80, "https": _HTTPS_PORT}
# Regions of the partitions `aws`, `aws-us-gov` and `aws-cn`. Regions of other partitions have other suffixes.
_REGION: Final = re.compile(r"(?:us|us-gov|eu|ap|sa|ca|me|af|il|mx|cn)-[a-z]+-[0-9]+\Z")
# Variables that only botocore handles.
_SPECIAL: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_SECURITY_TOKEN",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
# Host names, IPv4 and IPv6 addresses; no label of a name is empty or longer than 63 characters.
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%\w+)?)\Z"
)
_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy on the way to the endpoint.

    Attributes:
        host: Its host.
        port: Its port.
        headers: Headers for the proxy itself, such as its credentials.
    """

    host: str
    port: int
    headers: Mapping[str, str]


class Endpoint(msgspec.Struct, frozen=True):
    """Where and how to call DynamoDB.

    Attributes:
        secure: Whether to use TLS.
        host: The host to connect to.
        port: The port to connect to.
        region: The region that requests are signed for.
        credentials: Returns the current credentials. Temporary ones are renewed, so call it for every request.
        ca_bundle: A file of certificate authorities, `None` for the system's.
        proxy: The proxy to use, `None` to connect directly.
    """

    secure: bool
    host: str
    port: int
    region: str
    credentials: Callable[[], Credentials]
    ca_bundle: str | None = None
    proxy: Proxy | None = None

    @property
    def host_header(self) -> str:
        """The value of the `Host` header. It includes the port unless that is the default of the scheme."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.secure else "http"] else f"{host}:{self.port}"


def find() -> Endpoint:
    """Find the endpoint and the credentials of this process.

    Raises:
        ConfigurationError: There is no region, there are no credentials, or the endpoint URL or the proxy is not valid.
    """
    environment = os.environ
    region = environment.get("AWS_DEFAULT_REGION") or environment.get("AWS_REGION") or ""
    credentials = _plain_credentials(environment)
    if credentials is None or not _REGION.match(region) or _is_special(environment):
        return _from_botocore()
    url = environment.get("AWS_ENDPOINT_URL_DYNAMODB") or environment.get("AWS_ENDPOINT_URL") or _standard_url(region)
    return _endpoint(url, region, lambda: credentials, environment.get("AWS_CA_BUNDLE"))


def _plain_credentials(environment: Mapping[str, str]) -> Credentials | None:
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    token = environment.get("AWS_SESSION_TOKEN") or None
    if not (access_key + (token or "")).isprintable():
        # A line break would end the header that it stands in.
        raise ConfigurationError("AWS_ACCESS_KEY_ID or AWS_SESSION_TOKEN contains a control character")
    return Credentials(access_key, secret_key, token)


def _is_special(environment: Mapping[str, str]) -> bool:
    if any(environment.get(name) for name in _SPECIAL):
        return True
    return os.path.exists(os.path.expanduser(environment.get("AWS_CONFIG_FILE", "~/.aws/config")))  # noqa: PTH110, PTH111  # pathlib is slower to start


def _standard_url(region: str) -> str:
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://{SERVICE}.{region}.{suffix}"


def _from_botocore() -> Endpoint:
    """Let botocore resolve endpoint, region and credentials, by preparing a request that is not sent."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # half of a cold start, and rarely needed
    from botocore.session import Session  # noqa: PLC0415  # the same

    try:
        session = Session()
        region = session.get_config_variable("region") or os.environ.get("AWS_REGION")
        client = session.create_client(SERVICE, region_name=region, config=_without_account_endpoints())
        found = session.get_credentials()
        if found is None:
            raise ConfigurationError("There are no AWS credentials")
        url = _request_url(client)
        bundle = session.get_config_variable("ca_bundle")
    # A RuntimeError says that the credentials have expired.
    except (BotoCoreError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"DynamoDB's endpoint cannot be resolved: {error}") from error
    return _endpoint(url, client.meta.region_name, _renewed(found), bundle)


def _without_account_endpoints() -> Any:  # noqa: ANN401  # botocore ships no types
    """Return a configuration for the region's endpoint: newer versions of botocore prefer one of the account."""
    from botocore.config import Config  # noqa: PLC0415  # see `_from_botocore`

    option = "account_id_endpoint_mode"
    return Config(**{option: "disabled"} if option in Config.OPTION_DEFAULTS else {})


def _request_url(client: Any) -> str:  # noqa: ANN401  # botocore ships no types
    """Return the URL that a client sends requests to. For some FIPS endpoints, `client.meta` has another one."""
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415  # see `_from_botocore`

    urls: list[str] = []

    def answer(request: Any, **_: object) -> AWSResponse:  # noqa: ANN401  # botocore ships no types
        urls.append(request.url)
        return AWSResponse(request.url, 200, {}, _NoTables())

    client.meta.events.register("before-send.dynamodb", answer)
    client.list_tables()
    return urls[0]


class _NoTables:
    """The body of an empty response, with the method that botocore reads it by."""

    def stream(self) -> list[bytes]:
        return [b"{}"]


class CredentialsUnavailable(Exception):
    """Temporary credentials have expired and cannot be renewed at the moment."""


def _renewed(found: Any) -> Callable[[], Credentials]:  # noqa: ANN401  # botocore ships no types
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415  # see `_from_botocore`

    def credentials() -> Credentials:
        try:
            frozen = found.get_frozen_credentials()
        except (BotoCoreError, RuntimeError) as error:
            raise CredentialsUnavailable(str(error)) from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    return credentials


def _endpoint(url: str, region: str, credentials: Callable[[], Credentials], ca_bundle: str | None) -> Endpoint:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", _PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        host, port = "", None
    if not _HOST.match(host) or not port or parts.scheme not in _PORTS or not _is_bare(parts):
        # What stands before an `@` may be a password.
        shown = url.rpartition("@")[2]
        raise ConfigurationError(f"{shown!r} is not an endpoint URL of DynamoDB; it must be http(s)://HOST[:PORT]")
    secure = parts.scheme == "https"
    return Endpoint(secure, host, port, region, credentials, ca_bundle or None, _proxy(parts.scheme, host, port))


def _is_bare(parts: SplitResult) -> bool:
    """Whether a URL has a scheme, a host and a port only."""
    return parts.path in {"", "/"} and not parts.query and not parts.fragment and "@" not in parts.netloc


def _proxy(scheme: str, host: str, port: int) -> Proxy | None:
    """Return the proxy that the environment variables name for a host, by the rules of `urllib.request`."""
    if not any(os.environ.get(name) for name in _PROXIES):
        return None
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415  # slow to import

    url = getproxies_environment().get(scheme)
    if not url or proxy_bypass(f"{host}:{port}") or proxy_bypass(host):
        return None
    wrong = ConfigurationError(f"The proxy for {scheme} must be http://[USER:PASSWORD@]HOST[:PORT]")
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        proxy_port = parts.port or _PORTS["http"]
    except ValueError:
        raise wrong from None
    if parts.scheme != "http" or not parts.hostname:
        raise wrong
    headers = {}
    if parts.username is not None:
        from base64 import b64encode  # noqa: PLC0415  # only for such a proxy

        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
    return Proxy(parts.hostname, proxy_port, headers)
