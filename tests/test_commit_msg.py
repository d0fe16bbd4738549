"""The hook that checks subjects of commits, and its installation."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from git_repository import git

SCRIPTS = Path(__file__).parents[1] / "scripts"
LONG = "FIX " + "x" * 69
PREFIX = "it must open with one of FIX, ENH, API, DOC, TST, PERF, MNT and a space"
LENGTH = "it has 73 characters, at most 72 are allowed"


@pytest.fixture
def clone(tmp_path):
    """Make a repository with the scripts, and an environment that counts as installed."""
    folder = tmp_path / "clone"
    (folder / "scripts").mkdir(parents=True)
    for name in ("environment", "commit-msg"):
        shutil.copy(SCRIPTS / name, folder / "scripts")
    (folder / "setup.cfg").write_text("")
    (folder / ".gitignore").write_text(".venv\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "--message", "MNT Start")
    return folder


def install(folder):
    """Source scripts/environment as scripts/check does."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    code = """
    set -euo pipefail
    cat setup.cfg scripts/environment | cksum > .venv/.installed-dev
    . scripts/environment dev
    """
    subprocess.run(["bash", "-c", code], cwd=folder, check=True)


def commit(folder, message):
    return git(folder, "commit", "--allow-empty", "--message", message)


@pytest.fixture
def faults():
    """Return the function that lists what is wrong with a message."""
    hook = runpy.run_path(str(SCRIPTS / "commit-msg"))
    return lambda message: hook["faults"](hook["subject_of"](message))


@pytest.mark.parametrize(
    "message",
    [
        "FIX Keep the order of rows",
        "PERF " + "x" * 67,
        "DOC " + "é" * 68,
        "MNT Drop a file\n\n" + "x" * 100,
        "\n# a comment of git\nTST Keep the order\n# On branch main",
        "Merge branch 'other' of a place whose name alone has more than seventy-two characters",
        'Revert "FIX Keep the order of rows"',
        'Reapply "FIX Keep the order of rows"',
        "",
    ],
)
def test_commit_msg_good_subject_has_no_faults(faults, message):
    assert faults(message) == []


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Keep the order of rows", [PREFIX]),
        ("FIX: Keep the order of rows", [PREFIX]),
        ("fix Keep the order of rows", [PREFIX]),
        ("FIXED", [PREFIX]),
        (LONG, [LENGTH]),
        (f"{LONG[:40]}\n{LONG[41:]}\n\nThe body.", [LENGTH]),
        ("x" * 73, [PREFIX, LENGTH]),
    ],
)
def test_commit_msg_bad_subject_has_faults(faults, message, found):
    assert faults(message) == found


def test_commit_msg_installed_refuses_bad_subject(clone):
    install(clone)
    done = commit(clone, LONG)
    assert done.returncode == 1
    assert done.stderr == f"Subject of the commit message: {LENGTH}. Got:\n  {LONG}\n"
    assert commit(clone, LONG[:72]).returncode == 0


def test_environment_in_worktree_installs_hook_for_all(clone, tmp_path):
    worktree = tmp_path / "worktree"
    git(clone, "worktree", "add", str(worktree))
    install(worktree)
    for folder in (clone, worktree):
        assert commit(folder, LONG).returncode == 1


def test_environment_keeps_other_hook(clone):
    other = clone / ".git" / "hooks" / "commit-msg"
    other.parent.mkdir(exist_ok=True)
    other.write_text("#!/bin/sh\nexit 0\n")
    install(clone)
    assert other.read_text() == "#!/bin/sh\nexit 0\n"


def test_environment_without_repository_installs_nothing(clone):
    # An unpacked archive within another repository, whose hooks are not ours.
    inner = clone / "archive"
    shutil.copytree(clone, inner, ignore=shutil.ignore_patterns(".git", "archive"))
    install(inner)
    assert not (clone / ".git" / "hooks" / "commit-msg").exists()


def test_environment_without_git_succeeds(clone, tmp_path, monkeypatch):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tools))
    install(clone)
    assert not (clone / ".git" / "hooks" / "commit-msg").exists()


def test_environment_blocked_hooks_folder_succeeds(clone):
    hooks = clone / ".git" / "hooks"
    shutil.rmtree(hooks, ignore_errors=True)
    hooks.write_text("")
    install(clone)
    assert hooks.read_text() == ""
