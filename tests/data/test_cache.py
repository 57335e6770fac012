import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from segkit.config import DataConfig
from segkit.data import cache
from segkit.data.cache import cached
from segkit.data.classes import Classes
from segkit.data.memory import available_memory
from segkit.data.open import open_sources
from segkit.errors import SegkitError

KINDS = ["ram", "disk"]


class Arrays:
    """Pairs in memory, of several sizes and any type."""

    classes, problems = Classes(("a", "b"), ((0, 0, 0), (9, 9, 9))), ()

    def __init__(self, images, masks, paths=()):
        self.images, self.masks, self.files, self.reads = images, masks, paths, 0

    def __len__(self):
        return len(self.images)

    def name(self, index):
        return f"image{index}"

    def size(self, index):
        return self.images[index].shape[:2]

    def paths(self, index):
        return self.files[index] if self.files else None

    def read(self, index):
        self.reads += 1
        return self.images[index], self.masks[index]


def arrays(dtype=np.uint8, channels=3):
    rng = np.random.default_rng(0)
    sizes = [(5, 7), (1, 1), (9, 3), (4, 4)]
    images = [rng.integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype) for size in sizes]
    return Arrays(images, [rng.integers(0, 2, size).astype(np.uint8) for size in sizes])


def settings(cache, tmp_path, **options):
    return DataConfig(cache=cache, cache_folder=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint8, 1), (np.uint16, 3), (np.uint16, 7)])
def test_a_cache_holds_what_was_read_and_nothing_is_read_again(kind, dtype, channels, tmp_path, capsys):
    source = arrays(dtype, channels)
    held = cached("train", source, settings(kind, tmp_path, bits=8 * np.dtype(dtype).itemsize), channels)
    pixels = 35 + 1 + 27 + 16
    assert f"caching 4 train images in {'memory' if kind == 'ram' else tmp_path}" in capsys.readouterr().out
    assert (source.reads, len(held), held.name(2), held.size(2)) == (4, 4, "image2", (9, 3))
    for index in range(4):
        image, mask = held.read(index)
        assert image.dtype == dtype
        assert np.array_equal(image, source.images[index])
        assert np.array_equal(mask, source.masks[index])
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0, 0] = 1
    assert source.reads == 4
    assert pixels * (channels * np.dtype(dtype).itemsize + 1) <= len(held._bytes) < pixels * (channels * np.dtype(dtype).itemsize + 1) + 165


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_wrong_with_a_file_comes_to_light_as_without_a_cache(kind, make_folder, tmp_path):
    root = make_folder(train=5)
    (root / "images/train/train1.png").write_bytes((root / "images/train/train1.png").read_bytes()[:900])
    (root / "images/train/train2.png").write_bytes(b"")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(root / "masks/train/train3.png")
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(root / "masks/train/train4.png")  # of as many pixels as the image
    config = settings(kind, tmp_path, kind="folder", root=str(root))
    source = open_sources(config)["train"]
    held = cached("train", source, config, 3)
    assert np.array_equal(held.read(0)[0], source.read(0)[0])
    assert held.read(3)[1].shape == (3, 3)
    assert held.read(4)[1].shape == (48, 40)
    for index in (1, 2):
        with pytest.raises(SegkitError) as without:
            source.read(index)
        with pytest.raises(SegkitError) as within:
            held.read(index)
        assert str(within.value) == str(without.value)


def test_a_cache_on_disk_is_found_again_as_long_as_the_files_are_the_same(make_folder, tmp_path, monkeypatch):
    root = make_folder()
    config = settings("disk", tmp_path, kind="folder", root=str(root))

    def files():
        return {path.name for path in (tmp_path / "cache").glob("*.pixels")}

    def build(options=(), channels=3):
        other = DataConfig(**{**vars(config), **dict(options)})
        return cached("train", open_sources(other, channels)["train"], other, channels)

    first = build()
    before = files()
    assert len(before) == 1
    with monkeypatch.context() as patch:
        patch.setattr(cache, "_fill", None)  # not called
        moved = shutil.move(root / "images", root / "elsewhere")
        (root / "images").symlink_to(moved)  # the same files at another place
        again = build()
        assert np.array_equal(again.read(1)[0], first.read(1)[0])
        assert build({"crop": 64}).read(0)[0].shape == (40, 48, 3)
    assert build({}, 1).read(0)[0].shape == (40, 48, 1)
    build({"mapping": {"0": 1, "1": 0, "2": 2}})
    assert len(files()) == 3
    image = root / "images/train/train0.png"
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    build()
    assert len(files()) == 4
    assert before < files()


def test_a_killed_run_leaves_no_half_cache(tmp_path, monkeypatch):
    config, source = settings("disk", tmp_path), arrays()

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_fill", killed)
        with pytest.raises(KeyboardInterrupt):
            cached("train", source, config, 3)
    names = {path.suffix for path in (tmp_path / "cache").iterdir()}
    assert names == {".lock"}
    next((tmp_path / "cache").iterdir()).with_suffix(".part").write_bytes(b"what SIGKILL leaves")
    assert np.array_equal(cached("train", source, config, 3).read(2)[0], source.images[2])
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".lock", ".pixels"}


def test_of_those_that_start_together_one_fills_the_cache(tmp_path):
    config, sources = settings("disk", tmp_path), [arrays() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:  # each opens the lock by itself, as processes do
        held = list(pool.map(lambda source: cached("train", source, config, 3), sources))
    assert sorted(source.reads for source in sources) == [0, 0, 0, 4]
    assert all(np.array_equal(one.read(0)[0], sources[0].images[0]) for one in held)


def test_no_room_is_one_line_with_a_way_out(tmp_path, monkeypatch):
    source = arrays()
    monkeypatch.setattr(cache, "available_memory", lambda: 500)
    with pytest.raises(SegkitError, match=r"--data.cache ram: .*train.*use --data.cache disk, or none$"):
        cached("train", source, settings("ram", tmp_path), 3)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=475))  # 160 of the table + 79 * 4 + 0
    with pytest.raises(SegkitError, match=r"--data.cache disk: .*--data.cache_folder$"):
        cached("train", source, settings("disk", tmp_path), 3)
    assert source.reads == 0
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=480))
    cached("train", source, settings("disk", tmp_path), 3)
    (tmp_path / "file").touch()
    with pytest.raises(SegkitError, match=r"--data.cache disk: .*Not a directory; choose another folder with --data.cache_folder"):
        cached("train", source, DataConfig(cache="disk", cache_folder=str(tmp_path / "file/cache")), 3)


def test_the_cache_lies_where_users_keep_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached("val", arrays(), DataConfig(cache="disk"), 3)
    assert [path.name[:4] for path in (tmp_path / "segkit").glob("*.pixels")] == ["val-"]


def test_available_memory_is_the_least_of_machine_and_control_groups(tmp_path):
    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal: 900 kB\nMemFree: 5 kB\nMemAvailable:   800 kB\n")
    write("proc/self/cgroup", "0::/jobs/mine\n")
    assert available_memory(tmp_path) == 800 * 1024  # a machine without limits
    for group, limit, used, files in (("jobs/mine", "max", 10, 0), ("jobs", 300_000, 200_000, 50_000), ("", "max", 10, 0)):
        write(f"sys/fs/cgroup/{group}/memory.max", f"{limit}\n")
        write(f"sys/fs/cgroup/{group}/memory.current", f"{used}\n")
        write(f"sys/fs/cgroup/{group}/memory.stat", f"anon 7\ninactive_file {files}\nactive_file 3\n")
    assert available_memory(tmp_path) == 150_000
    write("proc/self/cgroup", "5:cpu:/\n3:memory:/docker/1234\n")  # the older version, seen from a container
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "70000\n")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "60000\n")
    write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 5000\n")
    assert available_memory(tmp_path) == 15_000
    assert 2**20 < available_memory() < 2**50
