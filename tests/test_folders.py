"""A folder per class: sorted, at any depth, and one warning for what is left out."""

import os

import pytest
from PIL import Image

from featx import load_image_folder
from featx.exceptions import FolderWarning, InputError
from featx.samples.folders import list_images


@pytest.fixture
def root(tmp_path):
    """Two classes, one of them with a folder inside."""
    root = tmp_path / "photos"
    for name in ("dog/b.png", "dog/a.PNG", "cat/deep/er/1.jpg", "cat/2.webp", "cat/10.gif"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return root


def names(bunch, root):
    return [os.path.relpath(path, root) for path in bunch.data]


def test_load_image_folder_is_sorted_and_recursive(root):
    images = load_image_folder(root)
    assert names(images, root) == [
        "cat/10.gif",
        "cat/2.webp",
        "cat/deep/er/1.jpg",
        "dog/a.PNG",
        "dog/b.png",
    ]
    assert images.target.tolist() == ["cat"] * 3 + ["dog"] * 2
    assert images.target_names == ["cat", "dog"]


def test_load_image_folder_takes_text_and_home(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    expected = load_image_folder(root).data.tolist()
    assert load_image_folder(str(root)).data.tolist() == expected
    assert load_image_folder("~/photos").data.tolist() == expected


def test_load_image_folder_names_what_it_leaves_out_in_one_warning(root):
    (root / "dog" / "notes.txt").write_text("mine")
    (root / "dog" / ".hidden.png").write_bytes(b"")
    (root / "dog" / ".git").mkdir()
    (root / ".cache").mkdir()
    (root / "LICENSE").write_text("mine")
    with pytest.warns(FolderWarning) as caught:
        images = load_image_folder(root)
    assert len(caught) == 1
    message = str(caught[0].message)
    left_out = ("dog/notes.txt", "dog/.hidden.png", "dog/.git", ".cache", "LICENSE")
    assert all(name in message for name in left_out)
    assert len(images.data) == 5


def test_load_image_folder_long_list_is_cut(root):
    for number in range(15):
        (root / "dog" / f"{number:02}.txt").write_text("mine")
    with pytest.warns(FolderWarning, match=r"15 files .* and 5 more"):
        load_image_folder(root)


def test_load_image_folder_litter_of_desktops_is_not_worth_a_warning(root):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "dog" / name).write_bytes(b"x")
    assert len(load_image_folder(root).data) == 5


def test_load_image_folder_follows_links_once(root):
    (root / "dog" / "again").symlink_to(root / "dog", target_is_directory=True)
    (root / "bird").symlink_to(root / "cat" / "deep", target_is_directory=True)
    images = load_image_folder(root)
    assert images.target.tolist().count("dog") == 2
    assert images.target.tolist().count("bird") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder"),
        ("photos/dog/b.png", "is a file"),
        ("photos/dog", "has no folders in it"),
    ],
)
def test_load_image_folder_unusable_folder_raises(name, message, root):
    with pytest.raises(InputError, match=message):
        load_image_folder(root.parent / name)


def test_load_image_folder_classes_without_images_are_all_named(root):
    (root / "empty").mkdir()
    (root / "bare").mkdir()
    with pytest.raises(InputError, match=r"2 of 4 class folders hold no image.*'bare', 'empty'"):
        load_image_folder(root)


def test_load_image_folder_splits_are_no_classes(root, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "sets" / split).mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds the splits train, val.*load_image_folder"):
        load_image_folder(tmp_path / "sets")


def test_list_images_files_stay_and_folders_give_what_lies_below_them(root):
    (root / "notes.txt").write_text("no image")
    with pytest.warns(FolderWarning, match="notes"):
        found = list_images([root / "dog" / "b.png", root])
    below = ["cat/10.gif", "cat/2.webp", "cat/deep/er/1.jpg", "dog/a.PNG", "dog/b.png"]
    assert [os.path.relpath(path, root) for path in found] == ["dog/b.png", *below]


def test_list_images_folders_without_images_are_all_named(root):
    for name in ("empty", "bare"):
        (root / name).mkdir()
    with pytest.raises(InputError, match=r"2 folders hold no image.*empty.*bare"):
        list_images([root / "empty", root / "bare", root / "dog" / "b.png"])


def test_list_images_patterns_that_name_no_file_are_all_named(root):
    (root / "dog" / "[1].png").touch()  # a file may have such a name
    gone = str(root / "dog" / "gone [1].png")  # of which reading will tell
    assert list_images([root / "dog" / "[1].png", gone])[1] == gone
    (root / "bare").mkdir()
    with pytest.raises(InputError, match=r"(?s)1 folders hold.*bare.*\*\.gif'.*\?\.jpg'\. A shell"):
        list_images([root / "bare", root / "*.gif", gone, root / "?.jpg"])
