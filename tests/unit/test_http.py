"""Requests as API Gateway sends them."""

import pytest

from batch_progress.errors import ApiKeyInvalid, AuthenticationRequired, AuthorizationMalformed, CredentialRefused
from batch_progress.tokens import Credential, Scheme
from functions.progress.http import Request, trace_id


def request(**headers: str | list[str]) -> Request:
    several = {name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in headers.items()}
    return Request({"multiValueHeaders": several})


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"httpMethod": None, "path": 7, "headers": [], "multiValueHeaders": "x", "requestContext": None},
        {"headers": {"x-api-key": None}, "multiValueHeaders": {"a": None, "b": []}, "queryStringParameters": None},
    ],
)
def test_an_odd_event_is_an_empty_request(event: dict[str, object]) -> None:
    one = Request(event)
    assert ("", "", {}, "") == (one.method, one.path, one.parameters, one.request_id)
    assert one.header("accept-encoding") is None


LONG, SHORT = "/api/v1/scrape/batch/{batch_id}/progress", "/v1/scrape/batch/{batch_id}/progress"


@pytest.mark.parametrize(
    ("resource", "sent", "proxy", "path"),
    [
        (LONG, "/api/v1/scrape/batch/b/progress", None, "/api/v1/scrape/batch/b/progress"),
        (LONG, "/scraper/api/v1/scrape/batch/b/progress", None, "/api/v1/scrape/batch/b/progress"),
        (SHORT, "/api/v1/scrape/batch/b/progress/", None, "/v1/scrape/batch/b/progress"),
        (SHORT, "/a/b/c/v1/scrape/batch/x%2Fy/progress", None, "/v1/scrape/batch/x%2Fy/progress"),
        (SHORT, "/short", None, "/short"),
        ("/{proxy+}", "/scraper/watch/b", "watch/b", "/watch/b"),
        ("/{proxy+}", "/scraper/watch/b/", "watch/b/", "/watch/b/"),
        (
            "/{proxy+}",
            "/evil/v1/scrape/batch/b/progress",
            "evil/v1/scrape/batch/b/progress",
            "/evil/v1/scrape/batch/b/progress",
        ),
        ("/{proxy+}", "/watch/b", None, "/watch/b"),
        ("/{proxy+}", "/watch/b", 7, "/watch/b"),
        ("/", "/", None, "/"),
        ("/", "/scraper", None, "/scraper"),
        (None, "/watch/b", "b", "/watch/b"),
    ],
)
def test_the_base_path_of_a_custom_domain_is_not_part_of_the_path(
    resource: str | None, sent: str, proxy: object, path: str
) -> None:
    """API Gateway keeps it in `path`, but not in the matched resource."""
    parameters = None if proxy is None else {"proxy": proxy}
    assert path == Request({"resource": resource, "path": sent, "pathParameters": parameters}).path


@pytest.mark.parametrize("form", ["headers", "multiValueHeaders"])
def test_both_forms_of_headers_are_read_whatever_their_case(form: str) -> None:
    value = "token-of-eight" if form == "headers" else ["token-of-eight"]
    assert Credential(Scheme.API_KEY, "token-of-eight") == Request({form: {"X-API-KEY": value}}).credential()


def test_of_a_repeated_parameter_the_last_counts() -> None:
    event = {
        "multiValueQueryStringParameters": {"limit": ["1", "2"]},
        "queryStringParameters": {"limit": "1", "x": "y"},
    }
    assert {"limit": "2", "x": "y"} == Request(event).parameters


@pytest.mark.parametrize("value", ["Bearer abc.def", "bearer abc.def", "BEARER   abc.def", " Bearer abc.def\t"])
def test_the_scheme_has_no_case(value: str) -> None:
    assert Credential(Scheme.BEARER, "abc.def") == request(authorization=value, x_api_key="other").credential()


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({}, AuthenticationRequired),
        ({"authorization": "Bearer"}, AuthorizationMalformed),
        ({"authorization": "Bearer a b"}, AuthorizationMalformed),
        ({"authorization": "Bearerabc"}, AuthorizationMalformed),
        ({"authorization": "Basic abc", "x_api_key": "good"}, AuthorizationMalformed),
        ({"authorization": ["Bearer a", "Bearer b"]}, AuthorizationMalformed),
        ({"x_api_key": ["a", "b"]}, ApiKeyInvalid),
    ],
)
def test_invalid_credentials(headers: dict[str, str | list[str]], refusal: type[Exception]) -> None:
    with pytest.raises(refusal) as caught:
        request(**headers).credential()
    assert isinstance(caught.value, CredentialRefused) == (refusal is not AuthenticationRequired)


def test_a_header_given_twice_alike_is_one() -> None:
    assert "a" == request(x_api_key=["a", " a"]).credential().token


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP;q=0.5", True),
        ("deflate, gzip", True),
        ("*", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip ; q = 0.000", False),
        ("*, gzip;q=0", False),
        ("*;q=0", False),
        ("identity", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_who_takes_gzip(value: str, *, accepted: bool) -> None:
    assert accepted == request(accept_encoding=value).accepts_gzip()


def test_the_next_link_keeps_the_other_parameters() -> None:
    """The link is only a query, so it works on both paths."""
    one = Request({"queryStringParameters": {"limit": "2", "cursor": "old", "include": "details", "x": "a b&c>"}})
    assert '<?cursor=new&limit=2&include=details>; rel="next"' == one.next_link("new")


def test_the_next_link_fits_into_the_headers() -> None:
    """Neither unknown parameters nor a list that repeats its values make it longer than API Gateway allows."""
    status = ",".join(["failed", "pending"] * 900)
    one = Request({"queryStringParameters": {"status": status, "utm": "x" * 9_000}})
    assert '<?cursor=new&status=failed%2Cpending>; rel="next"' == one.next_link("new")


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8", "1-67891233-abcdef012345678912345678"),
        ("Self=1-1-1;Root=1-67891233-abcdef012345678912345678", "1-67891233-abcdef012345678912345678"),
        ("Root=1-67891233-abcdef012345678912345678;Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:a:0", "id"),
        ("Root=1-67891233", "id"),
        ("", "id"),
    ],
)
def test_trace_id(monkeypatch: pytest.MonkeyPatch, variable: str, expected: str) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", variable)
    assert expected == trace_id("id")


def test_a_request_id_that_cannot_be_logged_is_none() -> None:
    """Then Lambda's id stands in the log and in the answer."""
    for request_id, kept in (("a-1", "a-1"), ("\ud800", ""), ("é", ""), (5, ""), (None, "")):
        assert kept == Request({"requestContext": {"requestId": request_id}}).request_id
