"""Facts: remembered, or unknown when the entry is damaged."""

import json

import pytest

from featx.cache.facts import FactStore

KEY = {"name": "vgg16", "size": [224, 224]}


@pytest.fixture
def facts(tmp_path):
    return FactStore(tmp_path / "notes")


def test_recall_gives_remembered_fact(facts):
    assert facts.recall(KEY) is None
    facts.remember(KEY, {"batch_size": 32})
    again = FactStore(facts.folder)
    assert again.recall(KEY) == {"batch_size": 32}
    assert again.recall({**KEY, "size": [96, 96]}) is None
    facts.remember(KEY, {"batch_size": 64})
    assert again.recall(KEY) == {"batch_size": 64}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"subject": 1, "note": 2}'])
def test_recall_damaged_entry_is_none(content, facts):
    facts.remember(KEY, 1)
    (entry,) = facts.folder.iterdir()
    entry.write_bytes(content)
    assert facts.recall(KEY) is None


@pytest.mark.parametrize("change", [{"subject": {"name": "vgg19"}}, {"note": 2}, {"digest": "00"}])
def test_recall_changed_entry_is_none(change, facts):
    facts.remember(KEY, 1)
    (entry,) = facts.folder.iterdir()
    entry.write_text(json.dumps({**json.loads(entry.read_text()), **change}))
    assert facts.recall(KEY) is None
