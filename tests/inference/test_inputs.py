import os
from pathlib import Path, PurePath

import pytest

from segkit.errors import SegkitError
from segkit.inference.inputs import find_jobs, results


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.jpg", "p/sub/b.PNG", "p/sub/c.tif", "p/notes.txt", "p/.hidden.png", "q/a.jpg", "q/d.npy", "e/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def names(*words, out="out", **options):
    return [results(job) for job in find_jobs(words, Path(out), **options)]


def test_folders_keep_their_sub_folders_and_globs_what_lies_below_their_fixed_part(files):
    assert names("p") == ["a.png", "sub/b.png", "sub/c.tif"]
    assert names("p/a.jpg", "q/d.npy") == ["a.png", "d.npy"]
    assert names("?/a.jpg") == ["p/a.png", "q/a.png"]
    assert names("**/*.jpg") == ["p/a.png", "q/a.png"]
    assert names("p/sub/*") == ["b.png", "c.tif"]
    assert names(str(files / "p" / "*.jpg")) == ["a.png"]


def test_an_image_that_is_named_twice_counts_once(files):
    assert names("p", "p/a.jpg", "p/../p/a.jpg") == ["a.png", "sub/b.png", "sub/c.tif"]


def test_links_are_followed_once_and_are_images_of_their_own(files):
    (files / "p/again.jpg").symlink_to("a.jpg")
    (files / "p/loop").symlink_to("../p")
    (files / "p/far").symlink_to("../q")
    (files / "p/dead.png").symlink_to("nowhere.png")  # bad, and reported as such
    assert names("p") == ["a.png", "again.png", "dead.png", "far/a.png", "far/d.npy", "sub/b.png", "sub/c.tif"]
    assert names("p", "p/far", "p/loop/sub") == names("p")


def test_a_folder_that_cannot_be_listed_is_named(files, monkeypatch):
    def scandir(path, real=os.scandir):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(SegkitError, match="cannot look into p/sub .Permission denied."):
        names("p")


def test_a_list_names_more_and_may_name_what_is_missing(files):
    (files / "list.txt").write_text("# chosen\n\np/a.jpg\n q/d.npy \nlost.png\n")
    jobs = find_jobs([], Path("out"), "list.txt")
    assert [(job.image, job.name) for job in jobs] == [
        (Path("p/a.jpg"), PurePath("a")),
        (Path("q/d.npy"), PurePath("d")),
        (Path("lost.png"), PurePath("lost")),
    ]


@pytest.mark.parametrize(
    ("words", "out", "message"),
    [
        ([], "out", "no images; name files"),
        (["lost.png"], "out", "lost.png: no such file or folder"),
        (["e"], "out", "e: no images in this folder; they end in .jpg"),
        (["p/*.bmp"], "out", r"p/\*.bmp: no image matches"),
        (["p/a.jpg", "q/a.jpg"], "out", "p/a.jpg and q/a.jpg would both become out/a.png; .*name the folder above"),
        (["p"], "p", "--out p: p/sub/c.tif is an image to predict and would be replaced"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(files, words, out, message):
    if out == "p":  # its masks lie among the images: c.tif would become c.tif
        words = ["p/sub/c.tif"]
        out = "p/sub"
        message = message.replace("--out p:", "--out p/sub:")
    with pytest.raises(SegkitError, match=message):
        find_jobs(words, Path(out))


def test_two_formats_of_one_name_are_refused(files):
    (files / "p/a.png").touch()
    with pytest.raises(SegkitError, match="p/a.jpg and p/a.png would both become out/a.png"):
        find_jobs(["p"], Path("out"))


def test_results_below_the_images_are_not_predicted_in_turn(files):
    before = names("p", out="p/predictions")
    (files / "p/predictions/sub").mkdir(parents=True)
    for name in ("a.png", "a.overlay.jpg", "sub/c.tif"):
        (files / "p/predictions" / name).touch()
    assert names("p", out="p/predictions") == before


def test_a_list_that_cannot_be_read_is_named(files):
    with pytest.raises(SegkitError, match="--images_from none.txt: cannot be read"):
        find_jobs([], Path("out"), "none.txt")
