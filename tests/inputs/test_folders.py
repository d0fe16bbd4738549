"""A folder per class: sorted, at any depth, and one warning for what is left out."""

import os
import socket
import unicodedata

import pytest
from PIL import Image

from featx import load_image_folder
from featx.exceptions import FolderWarning, InputError, ParameterError
from featx.inputs.folders import list_images
from featx.inputs.labeled import LabeledSamples


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


def test_load_image_folder_left_out_one_warning(root):
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


def test_load_image_folder_desktop_litter_no_warning(root):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "dog" / name).write_bytes(b"x")
    assert len(load_image_folder(root).data) == 5


def test_load_image_folder_follows_links_once(root):
    (root / "dog" / "again").symlink_to(root / "dog", target_is_directory=True)
    (root / "bird").symlink_to(root / "cat" / "deep", target_is_directory=True)
    with pytest.warns(FolderWarning, match="2 folders .*several labels: cat/deep, cat/deep/er"):
        images = load_image_folder(root)
    assert images.target.tolist().count("dog") == 2
    assert images.target.tolist().count("bird") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "no such folder"),
        ("photos/dog/b.png", "is a file"),
        ("photos/dog", "has no folders in it.*images .* in no folder of a class.* a list of their"),
    ],
)
def test_load_image_folder_unusable_folder_raises(name, message, root):
    with pytest.raises(InputError, match=message):
        load_image_folder(root.parent / name)


def test_load_image_folder_empty_path_raises(root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(InputError, match="'' is an empty path"):
        load_image_folder("")


def test_load_image_folder_empty_classes_are_named(root):
    (root / "empty").mkdir()
    (root / "bare").mkdir()
    with pytest.raises(InputError, match=r"2 of 4 class folders hold no image.*'bare', 'empty'"):
        load_image_folder(root)


def test_load_image_folder_splits_are_no_classes(root, tmp_path):
    for split in ("train", "val", "dev", "eval"):
        (tmp_path / "sets" / split).mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"holds the splits dev, eval, train, val.*, split='dev'\)"
    ):
        load_image_folder(tmp_path / "sets")


@pytest.fixture
def splits(root):
    """Two splits, each with the classes of the root, beside the notes on them."""
    for name in ("val", "train"):
        image_at(root.parent / "sets" / name / "cat" / "1.png")
        image_at(root.parent / "sets" / name / "dog" / "1.png")
    image_at(root.parent / "sets" / "train" / "dog" / "2.png")
    (root.parent / "sets" / "README.md").write_text("mine")
    return root.parent / "sets"


def test_load_image_folder_split_alone_is_listed(splits):
    images = load_image_folder(splits, split="train")
    assert names(images, splits) == ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png"]
    assert images.target.tolist() == ["cat", "dog", "dog"]


@pytest.mark.parametrize("split", ["test", "Train", "", "..", "train/cat", "README.md"])
def test_load_image_folder_missing_split_names_others(split, splits):
    with pytest.raises(InputError, match=rf"no split '{split}': it holds 'train', 'val'$"):
        load_image_folder(splits, split=split)


def test_load_image_folder_split_of_nothing_raises(root):
    with pytest.raises(InputError, match="no split 'train': it holds no folders"):
        load_image_folder(root / "dog", split="train")
    with pytest.raises(InputError, match="no such folder"):
        load_image_folder(root / "gone", split="train")


@pytest.mark.parametrize("ending", ["", "/", "/."])
def test_load_image_folder_subfolders_are_groups(ending, tmp_path):
    for name in ("mass/B/1.png", "mass/A/x/2.png", "none/B/3.png", "none/B/1.png"):
        image_at(tmp_path / "scans" / name)
    images = load_image_folder(f"{tmp_path}/scans{ending}", groups="subfolder")
    assert images.groups.tolist() == ["A", "B", "B", "B"]
    assert repr(images) == "4 images of 2 classes in 2 groups"


def test_load_image_folder_groups_of_a_split(splits):
    for name in ("cat", "dog"):
        (splits / "val" / name / "1.png").rename(image_at(splits / "val" / name / "Ann" / "2.png"))
    images = load_image_folder(splits, split="val", groups="subfolder")
    assert images.groups.tolist() == ["Ann", "Ann"]


def test_load_image_folder_default_has_no_groups(root):
    assert load_image_folder(root).groups is None


def test_load_image_folder_composed_groups_and_dot(tmp_path, monkeypatch):
    for form, name in (("NFC", "mass"), ("NFD", "none")):
        image_at(tmp_path / name / unicodedata.normalize(form, "Bär") / "1.png")
    monkeypatch.chdir(tmp_path)
    assert load_image_folder(".", groups="subfolder").groups.tolist() == ["Bär", "Bär"]


def test_load_image_folder_images_without_group_raise(root):
    with pytest.raises(
        InputError, match=r"4 of 5 images lie in no folder of a group.*'cat/10\.gif'"
    ):
        load_image_folder(root, groups="subfolder")
    for number in range(12):
        image_at(root / "dog" / f"{number:02}.png")
    with pytest.raises(InputError, match=r"16 of 17 images .* and 6 more"):
        load_image_folder(root, groups="subfolder")


def test_load_image_folder_faulty_params_raise(root):
    with pytest.raises(ParameterError, match=r"(?s)2 faulty.*groups='patient'.*split=1: expected"):
        load_image_folder(root, groups="patient", split=1)


def test_list_images_expands_folders_keeps_files(root):
    (root / "notes.txt").write_text("no image")
    with pytest.warns(FolderWarning, match="notes"):
        found = list_images([root / "dog" / "b.png", root])
    below = ["cat/10.gif", "cat/2.webp", "cat/deep/er/1.jpg", "dog/a.PNG", "dog/b.png"]
    assert [os.path.relpath(path, root) for path in found] == ["dog/b.png", *below]


def test_list_images_empty_folders_are_named(root):
    for name in ("empty", "bare"):
        (root / name).mkdir()
    with pytest.raises(InputError, match=r"2 folders hold no image.*empty.*bare"):
        list_images([root / "empty", root / "bare", root / "dog" / "b.png"])


def test_list_images_empty_patterns_are_named(root):
    (root / "dog" / "[1].png").touch()  # a file may have such a name
    gone = str(root / "dog" / "gone [1].png")  # of which reading will tell
    assert list_images([root / "dog" / "[1].png", gone])[1] == gone
    (root / "bare").mkdir()
    with pytest.raises(InputError, match=r"(?s)1 folders hold.*bare.*\*\.gif'.*\?\.jpg'\. A shell"):
        list_images([root / "bare", root / "*.gif", gone, root / "?.jpg"])


LITTER = [
    "__MACOSX",
    "lost+found",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
    ".ipynb_checkpoints",
    "#recycle",
    "@Recycle",
    ".Trashes",
    ".Trash-1000",
    ".Spotlight-V100",
    "__pycache__",
    ".AppleDouble",
    ".thumbnails",
]


def image_at(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    return path


@pytest.mark.parametrize("litter", LITTER)
def test_load_image_folder_system_folders_no_samples(litter, root):
    image_at(root / litter / "a" / "1.png")
    image_at(root / "dog" / litter / "b.png" / "thumb.jpg")
    assert load_image_folder(root).target.tolist() == ["cat"] * 3 + ["dog"] * 2
    assert len(list_images([root])) == 5


@pytest.mark.parametrize("litter", ["._a.png", "ehthumbs.db", "Icon\r", ".directory", "THUMBS.DB"])
def test_load_image_folder_system_files_no_samples(litter, root):
    (root / "dog" / litter).write_bytes(b"x")
    assert len(load_image_folder(root).data) == 5


@pytest.mark.parametrize("name", ["recycled", "found", "snapshot", "Originals", "trash"])
def test_load_image_folder_litter_like_names_stay(name, root):
    image_at(root / name / "1.png")
    assert name in load_image_folder(root).target_names


def test_load_image_folder_litter_makes_no_class(root):
    image_at(root / "bird" / "@eaDir" / "1.jpg")
    with pytest.raises(InputError, match=r"1 of 3 class folders hold no image.*'bird'"):
        load_image_folder(root)


@pytest.fixture
def lock(monkeypatch):
    """Lock folders, even for the superuser."""
    scandir, locked = os.scandir, set()

    def refuse(place):
        if os.fspath(place) in locked:
            raise PermissionError(13, "Permission denied", os.fspath(place))
        return scandir(place)

    def close(folder):
        os.chmod(folder, 0)
        if os.geteuid() == 0:
            locked.add(str(folder))
            monkeypatch.setattr(os, "scandir", refuse)

    yield close
    monkeypatch.undo()


def test_load_image_folder_locked_subfolder_is_named(root, lock):
    lock(root / "cat" / "deep")
    with pytest.warns(FolderWarning, match=r"1 .*cannot be read: cat/deep \(Permission denied\)"):
        assert len(load_image_folder(root).data) == 4
    os.chmod(root / "cat" / "deep", 0o755)


def test_load_image_folder_locked_class_raises(root, lock):
    lock(root / "cat")
    with pytest.raises(InputError, match=r"hold no image.*'cat'\. .*cat \(Permission denied\)"):
        load_image_folder(root)
    os.chmod(root / "cat", 0o755)


def test_load_image_folder_locked_root_raises(root, lock):
    lock(root)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        load_image_folder(root)
    os.chmod(root, 0o755)


@pytest.mark.parametrize("target", ["", "..", "dog", "dog/sub"])
def test_load_image_folder_link_away_is_named(target, root):
    image_at(root / "dog" / "sub" / "c.png")
    (root / "cat" / "link").symlink_to(root / target, target_is_directory=True)
    with pytest.warns(FolderWarning, match=r"1 links .*above, or to images of other.*: cat/link"):
        images = load_image_folder(root)
    assert images.target.tolist() == ["cat"] * 3 + ["dog"] * 3


def test_load_image_folder_link_upward_no_class(root):
    (root / "all").symlink_to(root, target_is_directory=True)
    with pytest.warns(FolderWarning, match=r"1 links .*: all"):
        assert load_image_folder(root).target_names == ["cat", "dog"]


def test_load_image_folder_outside_links_are_followed(root, tmp_path):
    image_at(tmp_path / "elsewhere" / "dogs" / "1.png")
    (root / "dog" / "more").symlink_to(tmp_path / "elsewhere" / "dogs", target_is_directory=True)
    (root / "bird").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "dog" / "file.png").symlink_to(image_at(tmp_path / "store" / "x.png"))
    with pytest.warns(FolderWarning, match="dog/more"):  # whose images bird has as well
        images = load_image_folder(root)
    assert images.target.tolist() == ["bird"] + ["cat"] * 3 + ["dog"] * 3


def test_load_image_folder_shared_image_is_named(root):
    (root / "dog" / "too.png").symlink_to(root / "cat" / "2.webp")
    with pytest.warns(FolderWarning, match=r"1 images .*two labels: dog/too\.png"):
        assert load_image_folder(root).target.tolist() == ["cat"] * 3 + ["dog"] * 3


def test_load_image_folder_shared_folder_is_named(root, tmp_path):
    store = tmp_path / "store"
    image_at(store / "1.png")
    (root / "dog" / "more").symlink_to(store, target_is_directory=True)
    (root / "cat" / "more").symlink_to(store, target_is_directory=True)
    (root / "hound").symlink_to("dog", target_is_directory=True)
    with pytest.warns(FolderWarning, match=r"3 folders .*several labels: dog/more, hound, hound/m"):
        images = load_image_folder(root)
    assert images.target.tolist() == ["cat"] * 4 + ["dog"] * 3 + ["hound"] * 3


def test_load_image_folder_shared_target_is_named(root, tmp_path):
    target = image_at(tmp_path / "store" / "x.png")
    for name in ("cat", "dog"):
        (root / name / "x.png").symlink_to(target)
    with pytest.warns(FolderWarning, match=r"1 images .*two labels: dog/x\.png"):
        assert load_image_folder(root).target.tolist() == ["cat"] * 4 + ["dog"] * 3


@pytest.mark.parametrize("name", ["RECYCLER", "found.001", "@tmp"])
def test_load_image_folder_litter_is_no_class(name, root):
    image_at(root / name / "1.png")
    assert load_image_folder(root).target_names == ["cat", "dog"]


def test_load_image_folder_broken_links_are_named(root):
    (root / "dog" / "gone.png").symlink_to(root / "gone.png")
    (root / "dog" / "loop.png").symlink_to(root / "dog" / "loop.png")
    (root / "dog" / "gone").symlink_to(root / "gone", target_is_directory=True)
    with pytest.warns(FolderWarning, match=r"3 links .*nowhere: dog/gone, dog/gone\.png, dog/loop"):
        assert len(load_image_folder(root).data) == 5


def test_load_image_folder_pipes_sockets_are_named(root, monkeypatch):
    os.mkfifo(root / "dog" / "pipe.png")
    monkeypatch.chdir(root / "dog")  # a path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        (root / "dog" / "null.jpg").symlink_to("/dev/null")
        with pytest.warns(FolderWarning, match=r"3 files .*pipes.*dog/null.*dog/pipe.*dog/socket"):
            assert len(load_image_folder(root).data) == 5
        with pytest.warns(FolderWarning, match=r"3 files .*pipes"):
            assert len(list_images([root])) == 5


def test_load_image_folder_spellings_become_one(root):
    for form in ("NFC", "NFD"):
        image_at(root / unicodedata.normalize(form, "café") / f"{form}.png")
    with pytest.warns(
        FolderWarning, match=r"2 class folders have the same name in two Unicode forms"
    ):
        images = load_image_folder(root)
    assert images.target_names == ["café", "cat", "dog"]
    assert images.target.tolist().count("café") == 2


def test_load_image_folder_decomposed_name_becomes_composed(root):
    image_at(root / unicodedata.normalize("NFD", "Bär") / "1.png")
    assert load_image_folder(root).target[0] == unicodedata.normalize("NFC", "Bär")


@pytest.mark.parametrize("name", ["Dog", "dog ", "ｄｏｇ"])
def test_load_image_folder_names_alike_are_named(name, root):
    image_at(root / name / "1.png")
    with pytest.warns(FolderWarning, match=r"2 class folders have names that differ in case"):
        assert {name, "dog"} <= set(load_image_folder(root).target_names)


def test_load_image_folder_bytes_become_text(root):
    folder = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(folder)
    image_at(root / "1.png").rename(os.path.join(os.fsdecode(folder), "1.png"))
    with pytest.warns(FolderWarning, match="characters that cannot be printed"):
        images = load_image_folder(root)
    assert images.target_names == ["caf\\udce9", "cat", "dog"]
    assert "".join(images.target_names).isprintable()
    assert os.path.isfile(images.data[0])


def test_load_image_folder_empty_files_are_samples(root):
    (root / "dog" / "empty.png").touch()  # an error when it is read, which names it
    assert len(load_image_folder(root).data) == 6


def test_list_images_link_up_is_named(root):
    (root / "dog" / "up").symlink_to(root, target_is_directory=True)
    with pytest.warns(FolderWarning, match=r"1 links .*: up"):
        assert len(list_images([root / "dog"])) == 2


@pytest.fixture
def few(tmp_path):
    """A folder of a class with an image, and of one whose image is damaged."""
    for name in ("<b>", "cat & dog"):
        (tmp_path / "few" / name).mkdir(parents=True)
    Image.new("RGB", (300, 40), "red").save(tmp_path / "few" / "<b>" / 'a"b.png')
    (tmp_path / "few" / "cat & dog" / "damaged.jpg").write_bytes(b"\xff\xd8no image")
    return tmp_path / "few"


def test_image_folder_shows_its_counts(few):
    assert repr(load_image_folder(few)) == "2 images of 2 classes"
    assert repr(LabeledSamples(data=["1.png"], target_names=["cat"])) == "1 image of 1 class"


def test_image_folder_html_skips_unreadable_images(few):
    folder = load_image_folder(few)
    shown = folder._repr_html_()
    assert "<th>&lt;b&gt;</th>" in shown
    assert 'title="a&quot;b.png"' in shown
    assert shown.count('<img src="data:image/webp;base64,') == 1
    for path in folder.data:
        os.unlink(path)
    assert "<img" not in folder._repr_html_()


def test_image_folder_html_shows_few_pictures(tmp_path):
    for number in range(12):
        (tmp_path / f"class {number:02}").mkdir()
        for image in range(8):
            Image.new("L", (9, 9)).save(tmp_path / f"class {number:02}" / f"{image}.png")
    shown = load_image_folder(tmp_path)._repr_html_()
    assert shown.count("<img") == 60
    assert "and 2 more classes" in shown


def test_load_image_folder_empty_says_so(tmp_path):
    with pytest.raises(InputError, match="is empty: expected a folder per class"):
        load_image_folder(tmp_path)
