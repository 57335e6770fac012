"""`provenance.json`: what makes two runs comparable, and what tells them apart."""

import json
import shutil

import pytest

from segkit.cli import train as training
from segkit.provenance import code_hash, differences, earlier_parts

TINY = "--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 2"
TINY += " --trainer.accelerator cpu --trainer.devices 1 --wandb.mode disabled --trainer.max_steps 4 --trainer.val_every 2"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains a tiny run and reads what it leaves."""
    monkeypatch.chdir(tmp_path)

    def call(run_id, *words):
        training.main([*TINY.split(), "--name", "x", "--run_id", run_id, *words])
        return json.loads((tmp_path / "runs/x" / run_id / "provenance.json").read_text())

    return call


def test_operators_change_nothing_that_is_hashed_and_everything_else_is_told_apart(train):
    first = train("a", "--upsample", "transpose")
    assert first["step"] == 4
    assert set(first["ci_op"]) == {"stages.0.upsample", "stages.1.upsample"}
    assert first["software"]["torch"]
    hashes = ("initial", "order", "batches", "schedule", "code")

    def changed(run_id, *words):
        other = train(run_id, *words)
        return {name for name in hashes if other[name] != first[name]}

    assert changed("b", "--upsample", "pixel_shuffle", "--upsample_init", "standard", "--upsample_width", "4", "4") == set()
    assert changed("c", "--seed", "1") == {"initial", "order", "batches"}
    assert changed("d", "--data.hflip", "0") == {"batches"}
    assert changed("e", "--lr", "1e-4") == {"schedule"}
    assert changed("f", "--decoder_channels", "8", "4") == {"initial"}
    assert changed("g", "--data.batch_size", "3") == {"order", "batches"}


def test_a_resumed_run_proves_the_same(train, tmp_path):
    whole = train("a")
    train("b", "--trainer.max_steps", "2", "--schedule", "constant", "--warmup", "0")
    run = tmp_path / "runs/x/b"
    half = json.loads((run / "provenance.json").read_text())
    assert (half["step"], half["order"] != whole["order"]) == (2, True)
    training.main(["--resume", str(run), "--trainer.max_steps", "4"])
    again = json.loads((run / "provenance.json").read_text())
    assert {name for name in whole if whole[name] != again[name]} == {"schedule"}  # another one was asked for


def test_what_a_run_was_begun_under_is_kept_and_said_where_it_goes_on_under_something_else(train, tmp_path, capsys):
    now = train("a", "--trainer.max_steps", "2", "--schedule", "constant", "--warmup", "0")
    run = tmp_path / "runs/x/a"
    then = {**now, "software": {**now["software"], "torch": "2.0.0"}, "device": "an abacus"}
    (run / "provenance.json").write_text(json.dumps(then))
    capsys.readouterr()
    training.main(["--resume", str(run), "--trainer.max_steps", "3"])
    said = capsys.readouterr().out
    assert f"not to the bit: torch 2.0.0, now {now['software']['torch']}; device an abacus, now {now['device']}\n" in said
    training.main(["--resume", str(run), "--trainer.max_steps", "4"])
    again = json.loads((run / "provenance.json").read_text())
    assert again["software"] == now["software"]
    assert again["earlier"] == [{"step": 2, **{name: then[name] for name in ("software", "code", "device", "threads")}}]


def test_no_earlier_part_where_nothing_has_changed_and_none_from_a_damaged_record(tmp_path):
    now = {"software": {"torch": "2"}, "code": "a", "device": "b", "threads": 1, "step": 3}
    for text in ("", "[]", "{}", "{", '"x"', json.dumps(now), json.dumps({**now, "earlier": "x"})):
        (tmp_path / "provenance.json").write_text(text)
        assert earlier_parts(tmp_path, now) == []
    (tmp_path / "provenance.json").write_text(json.dumps({**now, "software": [], "threads": None}))
    (part,) = earlier_parts(tmp_path, now)
    assert differences(part, now) == ["torch None, now 2", "threads None, now 1"]


def test_the_code_that_decides_a_run_is_hashed_and_no_other(monkeypatch, tmp_path):
    import segkit.provenance

    package = tmp_path / "segkit"
    shutil.copytree(segkit.provenance.Path(segkit.provenance.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    first = code_hash()
    monkeypatch.setattr(segkit.provenance, "__file__", str(package / "provenance.py"))
    assert code_hash() == first
    (package / "console.py").write_text("# another table\n")
    assert code_hash() == first
    (package / "losses.py").write_text("# another loss\n")
    assert code_hash() != first
