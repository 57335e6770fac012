"""`visualize.py` as it is typed."""

import pytest

from segkit.cli.visualize import main
from segkit.errors import SegkitError


def test_the_operator_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["operator", "--upsample", "transpose", "nearest", "--scale", "3", "--out", "ops.png"])
    out = capsys.readouterr().out
    for expected in ("transpose", "nearest", "CI smooth", "CI standard", "0.00", "figure  ops.png"):
        assert expected in out
    assert f"{64 * 64 * 25 + 64:,}" in out  # kernel 5, 64 to 64 channels, bias
    assert (tmp_path / "ops.png").is_file()


@pytest.mark.parametrize(("args", "message"), [
    ([], "no figure named; give one first: visualize.py operator"),
    (["--scale", "3"], "no figure named"),
    (["operatr"], "unknown figure 'operatr'; did you mean 'operator'"),
    (["operator", "--scale", "1"], "--scale 1: give a number from 2 to 16"),
    (["operator", "--out", "a.gif"], "--out a.gif: give a file name that ends in .png or .pdf"),
    (["operator", "--upsample", "[]"], "--upsample []: name one operator or more"),
    (["operator", "--upsample", "nearest", "--init", "bilinear"], "transposed convolution only, not for Nearest"),
])  # fmt: skip
def test_mistakes(args, message):
    with pytest.raises(SegkitError) as error:
        main(args)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("args", "message"), [
    (["operator", "--upsample", "transpose", "nearst"], "--upsample nearst: choose from"),
    (["operator", "transpose"], "unknown option 'transpose'"),
    (["operator", "--sclae", "3"], "did you mean --scale"),
])  # fmt: skip
def test_typing_errors_are_one_line(capsys, args, message):
    with pytest.raises(SystemExit) as left:
        main(args)
    assert left.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
