"""Which space a recipe led to: remembered, or found anew when the entry is of no use."""

import json

import pytest

from featx.identity.spaces import Space
from featx.storage.recipes import RecipeBook

SMALL = Space({"graph": "small", "feature_shape": [4], "dtype": "float32"}, label="small")
LARGE = Space({"graph": "large", "feature_shape": [8], "dtype": "float32"}, label="large")


@pytest.fixture
def book(tmp_path):
    return RecipeBook(tmp_path / "recipes")


def test_recall_gives_what_was_remembered(book):
    recipe = {"name": "vgg16", "size": [224, 224]}
    assert book.recall(recipe) is None
    book.remember(recipe, SMALL)
    again = RecipeBook(book.folder).recall(recipe)
    assert (again, again.label) == (SMALL, "small")
    assert book.recall({**recipe, "size": [96, 96]}) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b'{"recipe": 1, "space": 2}'])
def test_recall_damaged_entry_is_none(content, book):
    book.remember({"name": "vgg16"}, SMALL)
    (entry,) = book.folder.iterdir()
    entry.write_bytes(content)
    assert book.recall({"name": "vgg16"}) is None


def test_recall_entry_of_another_recipe_or_changed_space_is_none(book):
    book.remember({"name": "vgg16"}, SMALL)
    (entry,) = book.folder.iterdir()
    content = json.loads(entry.read_text())
    entry.write_text(json.dumps({**content, "recipe": {"name": "vgg19"}}))
    assert book.recall({"name": "vgg16"}) is None
    entry.write_text(json.dumps({**content, "space": LARGE.to_json()}))
    assert book.recall({"name": "vgg16"}) is None
