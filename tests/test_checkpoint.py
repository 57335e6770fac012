import os
import pickle

import pytest
import torch

from segkit.checkpoint import AtomicCheckpointIO, load_checkpoint, save_checkpoint
from segkit.errors import RunFailed, SegkitError

STATE = {"state_dict": {"weight": torch.arange(6.0)}, "global_step": 3}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_saved_is_loaded(tmp_path):
    plugin = AtomicCheckpointIO()
    plugin.save_checkpoint(STATE, tmp_path / "a" / "last.ckpt")
    loaded = plugin.load_checkpoint(tmp_path / "a" / "last.ckpt", weights_only=False)
    assert loaded["global_step"] == 3
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(6.0))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["last.ckpt"]
    plugin.remove_checkpoint(tmp_path / "a" / "last.ckpt")
    plugin.remove_checkpoint(tmp_path / "a" / "last.ckpt")
    assert list((tmp_path / "a").iterdir()) == []


def test_the_steps_of_a_save_come_in_the_order_that_survives_a_power_failure(tmp_path, monkeypatch):
    events = []
    kinds = {True: "folder", False: "file"}
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(f"fsync {kinds[os.path.isdir(f'/proc/self/fd/{fd}')]}"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append((a.parent == b.parent, b.name)), replace(a, b)))
    save_checkpoint(STATE, tmp_path / "last.ckpt")
    assert events == ["fsync file", (True, "last.ckpt"), "fsync folder"]


@pytest.mark.parametrize("broken", ["save", "fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch, broken):
    save_checkpoint(STATE, tmp_path / "last.ckpt")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{"save": (torch, "save"), "fsync": (os, "fsync"), "replace": (os, "replace")}[broken], fail)
    with pytest.raises(RunFailed, match="No space left on device.*make room"):
        save_checkpoint(STATE | {"global_step": 4}, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3
    left = {path.name: load_checkpoint(path)["global_step"] for path in tmp_path.iterdir()}
    assert left == {"last.ckpt": 3} | ({"previous.ckpt": 3} if broken == "replace" else {})


def test_a_file_of_any_damage_is_one_line_that_names_it(tmp_path):
    save_checkpoint(STATE, tmp_path / "good.ckpt")
    good = (tmp_path / "good.ckpt").read_bytes()
    path = tmp_path / "bad.ckpt"
    damaged = [
        b"",
        b"\0" * 100,
        b"hello",
        good[:-1],
        good[: len(good) // 2],
        good[:70] + b"\xff" * 40 + good[110:],
        pickle.dumps(STATE.keys),
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(SegkitError, match=r"bad\.ckpt' is damaged or not a segkit checkpoint") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"weight": torch.zeros(2)}])
def test_other_peoples_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(SegkitError, match="no 'state_dict'"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "evil": Evil()}, "evil.ckpt")
    with pytest.raises(SegkitError, match="damaged or not a segkit checkpoint"):
        AtomicCheckpointIO().load_checkpoint("evil.ckpt", weights_only=False)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("url", ["http://example.org/a.ckpt", "https://example.org/a.ckpt", "s3://bucket/a.ckpt", "file:///a.ckpt"])
def test_urls_are_refused(url):
    with pytest.raises(SegkitError, match="is a URL; download it"):
        load_checkpoint(url)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SegkitError, match=r"gone\.ckpt' does not exist"):
        load_checkpoint(tmp_path / "gone.ckpt")
