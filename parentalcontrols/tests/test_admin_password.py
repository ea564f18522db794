"""Staff's own password: changed under the limits of a log-in, and honestly refused when busy."""

import pytest
from django.test import Client

from parentalcontrols.tests.cast import PASSWORD, Cast
from pins import hashing

PAGE = "/admin/password_change/"
NEW = "another-evening-9"


@pytest.fixture
def browser(cast: Cast) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(cast.staff)
    return client


def change(browser: Client, old: str):
    fields = {"old_password": old, "new_password1": NEW, "new_password2": NEW}
    return browser.post(PAGE, fields)


def test_the_right_old_password_changes_it(cast: Cast, browser: Client) -> None:
    assert change(browser, PASSWORD).status_code == 302
    cast.staff.refresh_from_db()
    assert cast.staff.check_password(NEW)


def test_after_ten_wrong_old_passwords_the_right_one_is_refused_too(
    cast: Cast, browser: Client
) -> None:
    for _ in range(10):
        assert "incorrectly" in change(browser, "wrong-password-7").content.decode()
    for old in ("wrong-password-7", PASSWORD):
        assert "Too many attempts." in change(browser, old).content.decode()
    cast.staff.refresh_from_db()
    assert cast.staff.check_password(PASSWORD)


def test_a_full_hashing_queue_is_an_honest_503(
    cast: Cast, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # The old password is checked; then the queue fills before the new one is hashed.
        encode = hashing.run
        calls = []

        def fill_after_first(function, *args):
            calls.append(1)
            if len(calls) == 1:
                return encode(function, *args)
            taken = [hashing._hashers().slots.acquire(blocking=False) for _ in range(100)]
            try:
                return encode(function, *args)
            finally:
                for _ in range(taken.count(True)):
                    hashing._hashers().slots.release()

        patch.setattr(hashing, "run", fill_after_first)
        answer = change(browser, PASSWORD)
    assert len(calls) == 2
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Content-Type"].startswith("text/plain")
    cast.staff.refresh_from_db()
    assert cast.staff.check_password(PASSWORD)
