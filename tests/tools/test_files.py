"""Files that are whole or not there, on disks that fill up and in processes that die; locks between real processes."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.tools import files
from components.tools.files import claim, is_held, locked, replaced, write_json, write_text

pytestmark = pytest.mark.medium

ROOT = Path(__file__).parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- one file ----------------------------------------------------------------------------------------------------


def test_text_is_written_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "new/file", "σ")
    write_json(tmp_path / "new/json", {"a": 1})
    assert (tmp_path / "new/file").read_text(encoding="utf-8") == "σ"
    assert names(tmp_path / "new") == ["file", "json"]


def test_two_that_write_the_same_file_have_temporary_names_of_their_own(tmp_path, monkeypatch):
    """As two containers on one volume, whose processes have the same numbers."""
    seen, replace = set(), Path.replace
    monkeypatch.setattr(os, "getpid", lambda: 7)
    monkeypatch.setattr(Path, "replace", lambda self, to: (seen.add(self.name), replace(self, to))[1])
    for _ in range(2):
        write_text(tmp_path / "file", "x")
    assert len(seen) == 2


def full(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_on_a_full_disk_the_earlier_file_stays_and_one_line_says_so(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_text("earlier")
    monkeypatch.setattr(Path, step, full)
    with pytest.raises(OSError, match=r"file cannot be written \(No space left on device\): make room") as caught:
        write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["file"]
    assert path.read_text() == "earlier"


def test_a_disk_that_fills_up_half_way_leaves_the_earlier_file(tmp_path, monkeypatch):
    """The real thing: a device that takes nothing."""
    (tmp_path / "file").write_text("earlier")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "x")
    (tmp_path / "file.x.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_text(tmp_path / "file", "new" * 10000)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "earlier"


# --- groups ------------------------------------------------------------------------------------------------------


def make(place, text):
    """A folder with a file, or a file, as the name says."""
    if "folder" in place.name:
        place.mkdir()
        (place / "inside").write_text(text)
    else:
        place.write_text(text)


def content(path):
    return (path / "inside").read_text() if path.is_dir() else path.read_text()


GROUP = ("a_folder", "b_folder", "c_file")


@pytest.fixture
def group(tmp_path):
    """Two folders and a file, all of them old."""
    paths = [tmp_path / name for name in GROUP]
    for path in paths:
        make(path, "old")
    return paths


def replace_all(paths):
    with replaced(*paths) as places:
        for place in places:
            make(place, "new")


def test_a_group_is_replaced(group, tmp_path):
    replace_all(group)
    assert [content(path) for path in group] == ["new"] * 3
    assert names(tmp_path) == list(GROUP)


def test_a_group_is_made_where_there_was_none(tmp_path):
    paths = [tmp_path / "deep" / name for name in GROUP]
    replace_all(paths)
    assert [content(path) for path in paths] == ["new"] * 3
    assert names(tmp_path / "deep") == list(GROUP)


def test_a_block_that_fails_or_makes_too_little_leaves_the_group_as_it_was(group, tmp_path):
    def half(failure):
        with replaced(*group) as places:
            make(places[0], "new")
            if failure:
                raise failure

    for failure, kind in ((ValueError("no"), ValueError), (KeyboardInterrupt(), KeyboardInterrupt), (None, OSError)):
        with pytest.raises(kind):
            half(failure)
        assert [content(path) for path in group] == ["old"] * 3
        assert names(tmp_path) == list(GROUP)


@pytest.mark.parametrize("first_time", [False, True])
@pytest.mark.parametrize("number", range(8))
def test_a_move_that_fails_undoes_those_before_it(group, tmp_path, monkeypatch, number, first_time):
    """The first is that of the note, then each path has two: the old one out, the new one in."""
    if first_time:
        for path in group:
            files.remove(path)
    replace, done = Path.replace, []

    def failing(self, to):
        done.append(self)
        if len(done) == number + 1:
            full()
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", failing)
    moves = 4 if first_time else 7
    if number < moves:
        with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)"):
            replace_all(group)
    else:
        replace_all(group)
    monkeypatch.undo()
    left = ["new"] * 3 if number >= moves else [] if first_time else ["old"] * 3
    assert [content(path) for path in group if path.exists()] == left
    assert names(tmp_path) == (list(GROUP) if left else [])


DIES = """
import os, signal, sys
from pathlib import Path
from tests.tools.test_files import replace_all

calls = int(sys.argv[2])
def dying(method):
    def call(self, *arguments, **options):
        global calls
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        calls -= 1
        return method(self, *arguments, **options)
    return call
for name in ("replace", "unlink", "write_text", "mkdir"):
    setattr(Path, name, dying(getattr(Path, name)))
replace_all([Path(sys.argv[1]) / name for name in ("a_folder", "b_folder", "c_file")])
"""


def test_whenever_the_process_is_killed_the_next_call_finds_the_group_whole(tmp_path):
    """Killed before each of its writes in turn: what the next call's block sees is all old or all new."""
    seen, step, code = set(), 0, -signal.SIGKILL
    while code:
        folder = tmp_path / str(step)
        folder.mkdir()
        paths = [folder / name for name in GROUP]
        for path in paths:
            make(path, "old")
        code = subprocess.run([sys.executable, "-c", DIES, str(folder), str(step)], cwd=ROOT).returncode
        assert code in (0, -signal.SIGKILL)
        with replaced(*paths) as places:
            found = {content(path) for path in paths}
            for place in places:
                make(place, "newest")
        assert len(found) == 1, f"mixed after a kill before write {step}"
        seen |= found
        assert [content(path) for path in paths] == ["newest"] * 3
        step += 1
    assert seen == {"old", "new"}
    assert step > 12


# --- locks -------------------------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from components.tools.files import claim, locked
what, path = sys.argv[1:]
if what == "claim":
    claim(Path(path))
    print("in", flush=True)
    time.sleep(600)
with locked(Path(path), silence=0.5):
    print("in", flush=True)
    time.sleep(600)
"""


def holder(what, path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, what, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    return process


def test_the_same_process_has_at_once_what_it_has_claimed_in_any_thread(tmp_path):
    done = []
    for _ in range(2):
        claim(tmp_path / "training")
    thread = threading.Thread(target=lambda: (claim(tmp_path / "training"), done.append(1)), daemon=True)
    thread.start()
    thread.join(10)
    assert done
    assert is_held(tmp_path / "training.lock")


def test_a_lock_may_be_taken_twice_by_its_thread_and_once_by_two(tmp_path):
    path, order = tmp_path / "a.lock", []

    def second():
        with locked(path):
            order.append("second")

    with locked(path), locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
        assert is_held(path)
    thread.join(10)
    assert order == ["first", "second"]
    assert not is_held(path)
    assert not is_held(tmp_path / "none.lock")
    assert not (tmp_path / "none.lock").exists()


@pytest.mark.parametrize("what", ["claim", "locked"])
def test_a_second_process_waits_says_so_and_goes_on_when_the_first_is_killed(tmp_path, what):
    path = tmp_path / ("folder" if what == "claim" else "folder.lock")
    first = holder(what, path)
    assert first.stdout.readline() == b"in\n"
    assert is_held(tmp_path / "folder.lock")
    second = holder(what, path)
    assert second.stdout.readline().decode() == f"waiting for the process that has {path}\n"
    time.sleep(0.3)
    assert second.poll() is None
    first.kill()
    first.wait()
    assert second.stdout.readline() == b"in\n"
    second.kill()
    second.wait()
    assert not is_held(tmp_path / "folder.lock")
    claim(tmp_path / "folder")
