"""URLs as text: no secret is shown."""

import pytest

from featx._urls import shown_text, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:b64@host/a@b.jpg", "https://host/a@b.jpg"),
        ("https://b64@host:8080/a.jpg", "https://host:8080/a.jpg"),
        ("sftp://me:b6/b64@host/a.jpg", "sftp://host/a.jpg"),
        ("https://host:8080/a@b.jpg?sig=b64", "https://host:8080/a@b.jpg?sig=..."),
        ("https://host/a?v=2&Session=b64&w=1", "https://host/a?v=2&Session=...&w=1"),
        ("https://host/a.jpg#access_token=b64", "https://host/a.jpg#access_token=..."),
        ("zip://a#1.jpg::https://me:b64@host/b.zip", "zip://a#1.jpg::https://host/b.zip"),
    ],
)
def test_shown_url_hides_each_secret(url, shown):
    assert shown_url(url) == shown
    assert shown_text(f"no route to '{url}', 3 times") == f"no route to '{shown}', 3 times"
