"""A link to share: its token is in the fragment of the address, and opens one batch."""

from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import sign_in
from tests.browser.fake_api import TOKEN, FakeApi

SENDER = " Ask for a new link, or enter a token."


def test_a_link_opens_the_batch(tab: Page, api: FakeApi) -> None:
    """Without a form. The token is in no address, no entry of the history and no cookie; it survives a reload."""
    tab.goto("about:blank")
    before = tab.evaluate("history.length")
    tab.goto(f"{api.page()}#token={TOKEN}")
    expect(tab.locator("#percent")).to_have_text("80%")
    assert (api.page(), before + 1) == (tab.url, tab.evaluate("history.length"))
    assert ("", 0) == tuple(tab.evaluate("[document.cookie, localStorage.length]"))
    tab.reload()
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.go_back()
    tab.go_forward()
    assert api.page() == tab.url
    assert [] == [one for one in api.asked if TOKEN in str(one)]


@pytest.mark.parametrize("token", ["plus+and/slash==", "tilde~dot.dash-"])
def test_the_token_is_percent_encoded(tab: Page, api: FakeApi, token: str) -> None:
    """A plus sign that is not encoded is a plus sign too."""
    for written in (quote(token, safe=""), token):
        tab.goto("about:blank")
        with tab.expect_request("**/progress?**") as caught:
            tab.goto(f"{api.page()}#token={written}")
        assert f"Bearer {token}" == caught.value.headers["authorization"]


def test_a_link_that_is_opened_in_the_same_tab(tab: Page, api: FakeApi) -> None:
    """Only the fragment changes, and the browser does not load the page again."""
    tab.goto(api.page())
    expect(tab.get_by_label("API token")).to_be_visible()
    tab.goto(f"{api.page()}#token={TOKEN}")
    expect(tab.locator("#percent")).to_have_text("80%")
    assert api.page() == tab.url


def test_a_link_does_not_replace_the_token_of_the_tab(tab: Page, api: FakeApi) -> None:
    """It is used for its batch only; for another batch the tab uses the token that was entered."""
    sign_in(tab, api.page("batch_own"))
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.goto(f"{api.page()}#token=another-token")
    expect(tab.locator("#signin-fault")).to_have_text(f"This link is not valid.{SENDER}")
    tab.goto(api.page("batch_own"))
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.goto(api.page())
    expect(tab.locator("#percent")).to_have_text("80%")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("TOKEN_INVALID", "This link is not valid."),
        ("TOKEN_EXPIRED", "This link has expired."),
        ("API_KEY_DEACTIVATED", "This link has been deactivated."),
    ],
)
def test_a_link_that_is_refused(tab: Page, api: FakeApi, code: str, message: str) -> None:
    """The page says so, and asks for a token. A reload does not try the link again."""
    api.token_refusal = code
    tab.goto(f"{api.page()}#token=a-token-of-a-link")
    expect(tab.locator("#signin-fault")).to_have_text(message + SENDER)
    assert api.page() == tab.url
    asked = len(api.asked)
    tab.reload()
    expect(tab.get_by_label("API token")).to_be_visible()
    expect(tab.locator("#signin-fault")).to_be_empty()
    assert asked == len(api.asked)
    tab.get_by_label("API token").fill(TOKEN)
    tab.get_by_role("button", name="Watch").click()
    expect(tab.locator("#percent")).to_have_text("80%")


@pytest.mark.parametrize(
    "fragment", ["token=", "token=short", "token=with%20blank", "token=%ff", "token=a\u00fcbcdefgh"]
)
def test_a_damaged_link(tab: Page, api: FakeApi, fragment: str) -> None:
    """Its token is not sent."""
    tab.goto(f"{api.page()}#{fragment}")
    expect(tab.locator("#signin-fault")).to_have_text(f"This link is not valid.{SENDER}")
    assert (api.page(), []) == (tab.url, api.asked)


def test_a_link_to_another_batch(tab: Page, api: FakeApi) -> None:
    """A token for one batch gets the answer of an unknown batch for any other."""
    api.refusal = (404, "BATCH_NOT_FOUND", None)
    tab.goto(f"{api.page()}#token={TOKEN}")
    expect(tab.locator("#notice-text")).to_have_text(
        "This link does not open batch batch_xyz789. The batch may have been deleted."
    )


def test_a_link_with_an_invalid_batch_id(tab: Page, api: FakeApi) -> None:
    """Its token does not stay in the address either, and is not stored."""
    tab.goto(f"{api.page('a.b')}#token={TOKEN}")
    expect(tab.get_by_role("heading", name="No batch at this address")).to_be_visible()
    assert (api.page("a.b"), 0) == (tab.url, tab.evaluate("sessionStorage.length"))


def test_forgetting_the_token_of_a_link(tab: Page, api: FakeApi) -> None:
    """It is forgotten together with one that was entered."""
    sign_in(tab, api.page())
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.goto(f"{api.page()}#token={TOKEN}")
    expect(tab.locator("#percent")).to_have_text("80%")
    tab.get_by_role("button", name="Forget token").click()
    assert "" == tab.evaluate("Object.values(sessionStorage).join('')")
