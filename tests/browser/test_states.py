"""What a person is told, whatever state batch, token and network are in."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.fake_api import TOKEN, FakeApi, job


def test_a_running_batch(tab: Page, api: FakeApi) -> None:
    """Share, time left with its range, counts, and the bar's meaning in words."""
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text("Running")
    expect(tab.locator("#percent")).to_have_text("80%")
    expect(tab.locator("#left")).to_have_text("About 4 min left")
    expect(tab.locator("#range")).to_contain_text("between ")
    expect(tab.get_by_role("progressbar")).to_have_attribute(
        "aria-valuetext", "6 completed, 2 failed, 2 pending (1 of them processing), of 10."
    )
    expect(tab).to_have_title("80% · batch_xyz789")
    expect(tab.locator("#rows tr")).to_have_count(10)


def test_an_unchanged_poll_is_a_304(tab: Page, api: FakeApi) -> None:
    """The page sends the tag it has, waits as long as it is told, and goes on when something changes."""
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.wait_for_function("() => /next update/.test(document.getElementById('fresh').textContent)")
    tab.wait_for_timeout(2_500)
    assert api.unchanged >= 1
    assert len(api.asked) <= 5
    api.jobs = [job(1, "completed")] * 9 + [job(10)]
    expect(tab.locator("#percent")).to_have_text("90%")


def test_the_token_stays_in_the_tab(tab: Page, api: FakeApi) -> None:
    """It survives a reload, is in no address, no cookie and no lasting storage, and is gone when it is forgotten."""
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.reload()
    expect(tab.locator("#percent")).to_have_text("80%")
    assert ("", 0, api.page()) == tuple(tab.evaluate("[document.cookie, localStorage.length, location.href]"))
    tab.get_by_role("button", name="Forget token").click()
    expect(tab.get_by_label("API token")).to_be_visible()
    expect(tab.locator("#view")).to_be_hidden()
    assert "" == tab.evaluate("sessionStorage.getItem('batch-progress')")


def test_a_bad_token(tab: Page, api: FakeApi) -> None:
    """The form comes back, says why, and waits for another with the cursor in the field; nothing is asked again."""
    sign_in(tab, api.page(), "another-token")
    expect(tab.locator("#signin-fault")).to_have_text("This token is not valid.")
    expect(tab.get_by_label("API token")).to_be_focused()
    expect(tab.get_by_label("API token")).to_have_value("")
    tab.wait_for_timeout(1_500)
    assert 1 == len(api.asked)


def test_a_token_that_expires_while_one_watches(tab: Page, api: FakeApi) -> None:
    """Nothing of the batch stays on the screen."""
    sign_in(tab, api.page())
    expect(tab.locator("#view")).to_be_visible()
    api.refusal = (401, "TOKEN_EXPIRED", None)
    expect(tab.locator("#signin-fault")).to_have_text("This token has expired.")
    expect(tab.locator("#view")).to_be_hidden()


@pytest.mark.parametrize("token", ["short", "with blank inside", "ümlaut-token", "tab\tinside-it"])
def test_a_token_that_cannot_be_one_is_not_sent(tab: Page, api: FakeApi, token: str) -> None:
    sign_in(tab, api.page(), token)
    expect(tab.locator("#signin-fault")).to_contain_text("8 or more letters")
    assert [] == api.asked


def test_an_unknown_batch(tab: Page, api: FakeApi) -> None:
    """It is named, and is not asked for again until the person wants to."""
    api.refusal = (404, "BATCH_NOT_FOUND", None)
    sign_in(tab, api.page("batch_nowhere"))
    expect(tab.get_by_role("heading", name="No such batch")).to_be_visible()
    expect(tab.locator("#notice-text")).to_contain_text("batch_nowhere")
    tab.wait_for_timeout(1_500)
    assert 1 == len(api.asked)
    api.refusal = None
    tab.get_by_role("button", name="Try now").click()
    expect(tab.locator("#percent")).to_have_text("80%")


@pytest.mark.parametrize("name", ["a.b", "%3Cscript%3E", "x" * 129, "%ff"])
def test_an_address_without_a_batch(tab: Page, api: FakeApi, name: str) -> None:
    """No token is asked for, and nothing is sent."""
    tab.goto(api.page(name))
    expect(tab.get_by_role("heading", name="No batch at this address")).to_be_visible()
    expect(tab.get_by_label("API token")).to_be_hidden()
    assert [] == api.asked


def test_a_slash_at_the_end_does_no_harm(tab: Page, api: FakeApi) -> None:
    sign_in(tab, api.page() + "/")
    expect(tab.locator("#percent")).to_have_text("80%")


def test_offline_and_back(tab: Page, api: FakeApi) -> None:
    """What was known stays, marked with its time; the connection's return is noticed at once."""
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.context.set_offline(True)
    expect(tab.get_by_role("heading", name="You are offline")).to_be_visible()
    expect(tab.locator("#notice-text")).to_contain_text("This page shows the state of")
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.context.set_offline(False)
    expect(tab.locator("#notice")).to_be_hidden()
    expect(tab.locator("#state")).to_have_text("Running")


def test_a_service_that_is_away(tab: Page, api: FakeApi) -> None:
    """The page waits as long as it is told, and goes on by itself."""
    api.refusal = (503, "SERVICE_UNAVAILABLE", 2)
    sign_in(tab, api.page())
    expect(tab.get_by_role("heading", name="The service cannot answer just now")).to_be_visible()
    tab.wait_for_timeout(1_000)
    assert 1 == len(api.asked)
    api.refusal = None
    expect(tab.locator("#percent")).to_have_text("80%")


def test_faults_are_asked_about_more_and_more_rarely(tab: Page, api: FakeApi) -> None:
    """Without a word from the service each wait may be twice as long as the one before, and none is exact."""
    api.refusal = (500, "INTERNAL_ERROR", None)
    sign_in(tab, api.page())
    tab.wait_for_timeout(7_500)
    assert 2 <= len(api.asked) <= 4


def test_a_stalled_batch(tab: Page, api: FakeApi) -> None:
    """It is said, and no end is promised."""
    api.basis = "stalled"
    sign_in(tab, api.page())
    expect(tab.get_by_role("heading", name="This batch has stalled")).to_be_visible()
    expect(tab.locator("#left")).to_have_text("2 pending, no progress")
    expect(tab.locator("#chart .band")).to_have_count(0)


def test_a_finished_batch(tab: Page, api: FakeApi) -> None:
    """It is said, with what failed, and the service is left alone."""
    times = {"started_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:06:05.000Z"}
    reason = {"error_code": "TIMEOUT", "error_message": "It took too long."}
    api.jobs = [job(1, "completed", **times), job(2, "failed", **times, **reason)]
    api.basis = "finished"
    sign_in(tab, api.page())
    expect(tab.locator("#state")).to_have_text("Finished")
    expect(tab.locator("#left")).to_have_text("Done, with 1 failed")
    expect(tab.locator("#range")).to_contain_text("after 2 min")
    expect(tab.locator("#reasons")).to_contain_text("TIMEOUT It took too long.")
    tab.wait_for_timeout(2_000)
    assert 1 == len(api.asked)


def test_a_token_is_sent_as_bearer(tab: Page, api: FakeApi) -> None:
    with tab.expect_request("**/progress?**") as caught:
        sign_in(tab, api.page())
    assert f"Bearer {TOKEN}" == caught.value.headers["authorization"]
    assert not caught.value.headers.get("referer")
