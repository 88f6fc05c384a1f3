"""Files that appear whole: what is said where they cannot, and what killed processes leave."""

import errno
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from mtbus_jax import errors, files
from mtbus_jax.errors import Stopped, UserError


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device. Make room there"),
        (errno.EROFS, "Read-only file system. Make it writable"),
        (errno.EACCES, "Permission denied. Make it writable"),
        (errno.EFBIG, "File too large. Make room there"),
    ],
)
def test_what_cannot_be_written_is_named_and_stays_as_it_was(tmp_path, monkeypatch, number, words):
    path = tmp_path / "summary.json"
    path.write_text("old")

    def refuse(self, content):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(pathlib.Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=words) as caught:
        files.write_json(path, {"new": 1})
    assert f"{path} cannot be written" in str(caught.value)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["summary.json"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = socket.gethostname()
    names = {
        f"a.json.0123abcd.{gone.pid}@{here}.partial": False,
        f"a.json.0123abcd.{os.getppid()}@{here}.partial": True,  # it runs
        "a.json.0123abcd.7@elsewhere.partial": True,  # it may run
        "b.json.0123abcd.7@elsewhere.partial": False,  # but not for so long
        "a.json.00112233445566778899aabbccddeeff.partial": True,
        "b.json.00112233445566778899aabbccddeeff.partial": False,  # of a former version
        "a.json": True,
    }
    for name in names:
        (tmp_path / name).write_text("x")
        if name.startswith("b"):
            os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    folder = tmp_path / f".out.0123abcd.{gone.pid}@{here}.partial"
    (folder / "deep").mkdir(parents=True)
    files.remove_leftovers(tmp_path, ".other.")
    assert folder.is_dir()
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {n for n, stays in names.items() if stays}
    files.remove_leftovers(tmp_path / "nowhere")


def test_a_partial_file_is_known_as_its_writers(tmp_path):
    partial = files.partial_path(tmp_path / "a.json")
    partial.write_text("x")
    assert partial != files.partial_path(tmp_path / "a.json")
    files.remove_leftovers(tmp_path)
    assert partial.exists()  # this process runs


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (UserError("give\n  more."), 2, "main.py: give more."),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 2, "/a/b cannot be written: No"),
        (OSError(errno.EROFS, "Read-only file system"), 2, "Make it writable"),
        (KeyboardInterrupt(), 130, "main.py: stopped. Run the same command again."),
        (Stopped("stopped by SIGTERM. So and so.", 15), 143, "main.py: stopped by SIGTERM. So and"),
        (Stopped("stopped. So and so."), 130, "main.py: stopped. So and so."),
    ],
)
def test_how_a_program_ends(capsys, raised, code, words):
    with pytest.raises(SystemExit) as caught, errors.exit_on_user_error("main.py"):
        raise raised
    assert caught.value.code == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_fault_of_the_program_is_not_taken_for_the_users():
    with pytest.raises(FileNotFoundError), errors.exit_on_user_error("main.py"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "x")


def test_the_reason_behind_a_long_text():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise ValueError("tensorstore " * 99) from error
    except ValueError as error:
        assert errors.reason(error) == "No space left on device"
    assert errors.reason(ValueError("a\nb")) == "a b"
    assert len(errors.reason(ValueError("tensorstore " * 99))) < 310


class TestGrowingFiles:
    def test_pieces_are_there_at_once(self, tmp_path):
        path = tmp_path / "table.csv"
        path.write_text("of before")
        growing = files.GrowingFile(path, "head\n")
        for number in range(3):
            growing.append(f"ü{number}\n")
            assert path.read_text(encoding="utf-8").splitlines()[-1] == f"ü{number}"
        growing.close()
        assert path.read_text(encoding="utf-8") == "head\nü0\nü1\nü2\n"

    def test_half_a_piece_is_taken_back(self, tmp_path):
        path = tmp_path / "table.csv"
        growing = files.GrowingFile(path, "head\n")
        growing.append("one\n")
        real = growing._file

        class Broken:
            """Takes two bytes, and no more."""

            def __init__(self, error):
                self.left, self.error = 2, error

            def write(self, content):
                if not self.left:
                    raise self.error
                taken, self.left = self.left, 0
                return real.write(content[:taken])

            def __getattr__(self, name):
                return getattr(real, name)

        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for error, raised in ((full, UserError), (Stopped("stopped.", 15), Stopped)):
            growing._file = Broken(error)
            with pytest.raises(raised, match=r"table\.csv cannot be written: No space|stopped"):
                growing.append("two\n")
            assert path.read_text() == "head\none\n"
        growing._file = real
        growing.append("three\n")
        assert path.read_text() == "head\none\nthree\n"


def test_a_name_as_long_as_can_be_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files.socket, "gethostname", lambda: "ip-10-20-30-40.eu-central-1.internal")
    for name in ("x" * 251 + ".png", "乳" * 80 + ".png"):
        files.write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"
    assert len(list(tmp_path.iterdir())) == 2
    partial = files.partial_path(tmp_path / ("x" * 255))
    assert files._PARTIAL.fullmatch(partial.name)["host"].startswith("ip-10")


def test_a_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path, monkeypatch):
    there, link = tmp_path / "there", tmp_path / "link"
    there.mkdir()
    (there / "old").touch()
    link.symlink_to(there)
    with files.folder_at_once(link) as folder:
        (folder / "new").touch()
    assert link.is_symlink()
    assert [path.name for path in there.iterdir()] == ["new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    with monkeypatch.context() as patch:  # what was there stays if the new one cannot come
        rename = os.rename

        def refuse(source, target):
            if str(source).endswith(".partial") and target == there and (source / "newer").exists():
                raise PermissionError(13, "Permission denied")
            rename(source, target)

        patch.setattr(os, "rename", refuse)
        with (
            pytest.raises(UserError, match="there cannot be written"),
            files.folder_at_once(there) as folder,
        ):
            (folder / "newer").touch()
    assert [path.name for path in there.iterdir()] == ["new"]
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(UserError, match="a mount point"), files.folder_at_once(there):
        pass


def test_a_text_is_the_same_after_its_way_through_a_table():
    for text in ("=1+1", "-x", "@y", "'", "'quoted'", "plain", ""):
        assert files.without_sign(files.cell(text)) == text
