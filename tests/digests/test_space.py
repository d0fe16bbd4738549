"""Two spaces are one exactly when what decides the numbers is the same."""

import json

from featx.digests.space import Space

DESCRIPTION = {"graph": "ab12", "pooling": "avg", "feature_shape": [4, 4, 8], "dtype": "float32"}


def test_space_digest_ignores_label_and_order():
    other = Space(dict(reversed(DESCRIPTION.items())), label="vgg16")
    assert Space(DESCRIPTION).digest == other.digest
    assert Space(DESCRIPTION) == other


def test_space_digest_changes_with_any_entry():
    digests = {Space({**DESCRIPTION, name: "other"}).digest for name in DESCRIPTION}
    assert len(digests | {Space(DESCRIPTION).digest}) == len(DESCRIPTION) + 1


def test_space_shape_and_width():
    space = Space(DESCRIPTION)
    assert space.feature_shape == (4, 4, 8)
    assert space.n_features == 128


def test_space_json_round_trip_keeps_everything():
    space = Space(DESCRIPTION, label="vgg16")
    again = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert (again, again.label, again.digest) == (space, "vgg16", space.digest)
