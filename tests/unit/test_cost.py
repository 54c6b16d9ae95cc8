"""The arithmetic of the cost tables, by hand: what AWS's price lists give for these quantities."""

import re
from dataclasses import replace

import pytest

from benchmarks.cost import (
    BEFORE,
    EMBEDDED_METRICS,
    LOGGED,
    MONTH,
    PRICES,
    REGIONS,
    SMALL_JOBS,
    Bill,
    Poll,
    Use,
    gb_seconds,
    hostile,
    idle,
    million,
    polls,
    sampled,
    small,
    stack,
    stream,
    supervised,
    supervision,
    workers,
)
from benchmarks.report import ROOT
from local_cloud.template import read

CHEAP = replace(
    BEFORE,
    logged=LOGGED,
    traced=False,
    platform_bytes=0,
    route_metrics=0,
    metrics=10,
    alarm_metrics=20,
    dashboard_metrics=50,
)
NOW = stack(read())


def cents(amount: float) -> float:
    return round(amount, 2)


def by_price(bill: Bill) -> dict[str, float]:
    """Return the dollars of each price, in cents."""
    found: dict[str, float] = {}
    for use in bill.uses:
        found[use.price] = found.get(use.price, 0) + use.dollars()
    return {name: cents(amount) for name, amount in found.items()}


def test_a_quantity_costs_its_price() -> None:
    """3 million requests at $3.50 a million; in Frankfurt at $3.70."""
    use = Use("api_request", 3_000_000, "")
    assert (10.5, 11.1) == tuple(cents(use.dollars(region)) for region in REGIONS)


def test_every_price_has_its_source() -> None:
    """Each price is there for each region, with the page of AWS that has it."""
    for price in PRICES.values():
        assert price.source.startswith("https://aws.amazon.com/")
        assert set(REGIONS) == price.dollars.keys()
        assert set(price.unconfirmed) <= set(REGIONS)


def test_a_million_polls() -> None:
    """Of 2 units, 30 ms at 1 GB, 1,000 bytes sent, with what the function and the access log write."""
    poll = Poll("", read_units=2, billed_ms=30, sent_bytes=1_000)
    assert {
        "api_request": 3.50,
        "lambda_request": 0.20,
        "lambda_gb_second": 0.40,  # 30,000 GB-seconds
        "read_unit": 0.25,
        "log_byte": cents((LOGGED["answer"] + LOGGED["access"]) * 0.50 / 1_000),
        "transfer_byte": 0.09,
    } == by_price(million(poll, CHEAP))


def test_traces_of_a_million_polls_a_month() -> None:
    """0.38 a second: 83% are the first of their second, and 5% of the others are recorded too. $5 a million."""
    assert 0.84 == cents(sampled(1_000_000 / 2_628_000))
    poll = Poll("", read_units=0, billed_ms=1, sent_bytes=0)
    assert 4.20 == by_price(million(poll, BEFORE))["trace"]


def test_many_polls_a_second_are_traced_at_the_rate() -> None:
    assert 0.06 == cents(sampled(100))


def test_memory_and_time() -> None:
    """2 million invocations of 10 ms at a quarter of a GB: 5,000 GB-seconds, $0.0667."""
    assert 5_000 == gb_seconds(2_000_000, 10, 256).quantity
    assert 0.0667 == round(gb_seconds(2_000_000, 10, 256).dollars(), 4)


def test_an_idle_month() -> None:
    """657,000 receives at $0.40 a million; 8,760 requests for a key at $0.03 for 10,000; 20 metrics of alarms."""
    assert {"alarm": 2.00, "dashboard": 0.00, "message": 0.26, "key_request": 0.03} == by_price(idle(CHEAP))


def test_a_dashboard_of_more_than_50_metrics_costs() -> None:
    assert 3.00 == by_price(idle(replace(CHEAP, dashboard_metrics=51)))["dashboard"]


def test_the_stream_function_in_every_second() -> None:
    """2,628,000 invocations of 20 ms at a quarter of a GB, and as many write units. Each is traced: $13.14."""
    costs = by_price(stream(CHEAP))
    logged = cents(2.628 * LOGGED["delivery"] * 0.50 / 1_000)
    assert {"lambda_request": 0.53, "lambda_gb_second": 0.18, "write_unit": 1.64, "log_byte": logged} == costs
    assert 13.14 == by_price(stream(BEFORE))["trace"]


def test_supervision() -> None:
    """Of a million batches with one check each, which reads 4 units, writes 2, and sends a message and an event."""
    row = {"read_units": 4, "write_units": 2, "messages": 1, "events": 1, "invocations": 1, "milliseconds": 100}
    assert {
        "read_unit": 0.50,
        "write_unit": 1.25,
        "message": 1.20,  # sent, received and deleted
        "event": 1.00,
        "lambda_request": 0.20,
        "lambda_gb_second": 0.67,  # 50,000 GB-seconds
        "log_byte": cents(LOGGED["check"] * 0.50 / 1_000),
    } == by_price(supervision(row, CHEAP, 1_000_000))


def test_a_throttled_request_costs_a_line_and_its_answer() -> None:
    """API Gateway does not charge it, and no function runs."""
    *_, throttled = hostile()
    assert {"log_byte", "transfer_byte"} == by_price(million(throttled, NOW)).keys()


def test_a_token_look_up_is_one_unit() -> None:
    """It is consistent, so that a new token works at once."""
    without, _, made_up, *_ = hostile()
    assert (0, 1) == (without.read_units, made_up.read_units)


def test_a_small_users_month_before() -> None:
    """Each part of the bill of the stack with everything on."""
    assert {
        "API Gateway": 3.50,
        "traces": 18.07,  # 840,000 polls, 2,628,000 deliveries, 147,000 checks
        "metrics, alarms, dashboard": 14.60,  # 23 + 10 metrics, 17 of alarms, a dashboard
    } == {
        part: cents(amount)
        for part, amount in small(BEFORE).parts().items()
        if part in {"API Gateway", "traces"} or "alarms" in part
    }
    assert 37 <= small(BEFORE).dollars() <= 47


@pytest.mark.parametrize("region", REGIONS)
def test_the_parts_are_the_whole(region: str) -> None:
    for bill in (small(NOW), idle(NOW), million(polls()[0], NOW)):
        assert bill.dollars(region) == pytest.approx(sum(bill.parts(region).values()))


def test_the_functions_write_one_metric_themselves() -> None:
    """One in the embedded metric format, which the bill counts besides those of the filters."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "functions").rglob("*.py"))
    assert EMBEDDED_METRICS == len(re.findall(r"add_metric|\"Metrics\": \[", code))


def test_the_template_decides_the_bill() -> None:
    """Alarms, metrics of filters and the dashboard are counted in template.yaml, by hand here."""
    text = (ROOT / "template.yaml").read_text(encoding="utf-8")
    alarms = text.partition("# ---- Alarms")[2].partition("# ---- Dashboard")[0]
    assert NOW.alarm_metrics == len(re.findall(r"MetricName:", alarms))
    # Two of the filters count direct calls.
    assert NOW.metrics == text.count("Type: AWS::Logs::MetricFilter") - 2 + EMBEDDED_METRICS
    assert NOW.dashboard_metrics <= 50
    assert not any((NOW.traced, NOW.route_metrics, NOW.platform_bytes, NOW.dashboards))


@pytest.mark.parametrize("region", REGIONS)
def test_a_small_users_month_costs_at_most_15_dollars(region: str) -> None:
    """With the workers' own writes."""
    row = supervised()[SMALL_JOBS]
    assert small(NOW).dollars(region) + workers(row, MONTH / row["seconds"]).dollars(region) <= 15


def test_the_page_on_security_says_what_strangers_cost() -> None:
    """A million requests, a month at the default limit, and a month of reading a large batch in full."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    without, _, made_up, _, throttled = (million(request, NOW).dollars() for request in hostile())
    limit = read()["Parameters"]["RateLimit"]["Default"]
    large = next(poll for poll in polls() if poll.name == "50,000 jobs")
    reads = 3_000 / large.read_units
    month = reads * MONTH / 1_000_000 * million(large, NOW).dollars()
    assert f"A million of them cost about ${without:.0f}: $3.50 for API Gateway" in text
    assert f"its answer, ${throttled:.2f} for a million" in text
    assert f"of {limit} a second" in text
    assert f"at most about ${round(limit * MONTH / 1_000_000 * made_up, -1):,.0f} a month" in text
    assert f"{reads:.1f} times a second, which costs about ${round(month, -2):,.0f} a month" in text
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert f"a batch of 50,000 jobs can be read in full {reads:.1f} times a second" in operations
