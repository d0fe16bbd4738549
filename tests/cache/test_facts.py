"""Small facts: remembered, or found anew when the entry is of no use."""

import json

import pytest

from featx.cache.cache import FactStore

SUBJECT = {"name": "vgg16", "size": [224, 224]}


@pytest.fixture
def book(tmp_path):
    return FactStore(tmp_path / "notes")


def test_recall_gives_what_was_remembered(book):
    assert book.recall(SUBJECT) is None
    book.remember(SUBJECT, {"batch_size": 32})
    again = FactStore(book.folder)
    assert again.recall(SUBJECT) == {"batch_size": 32}
    assert again.recall({**SUBJECT, "size": [96, 96]}) is None
    book.remember(SUBJECT, {"batch_size": 64})
    assert again.recall(SUBJECT) == {"batch_size": 64}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"subject": 1, "note": 2}'])
def test_recall_damaged_entry_is_none(content, book):
    book.remember(SUBJECT, 1)
    (entry,) = book.folder.iterdir()
    entry.write_bytes(content)
    assert book.recall(SUBJECT) is None


@pytest.mark.parametrize("change", [{"subject": {"name": "vgg19"}}, {"note": 2}, {"digest": "00"}])
def test_recall_changed_entry_is_none(change, book):
    book.remember(SUBJECT, 1)
    (entry,) = book.folder.iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), **change}))
    assert book.recall(SUBJECT) is None
