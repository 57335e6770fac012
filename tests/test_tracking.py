import json
import logging
import os
import socket
import struct
import sys
import time

import numpy as np
import pytest
from PIL import Image

from segkit import tracking
from segkit.callbacks import Checkpoints, PanelCallback
from segkit.config import WandbConfig
from segkit.metrics_file import FolderLogger
from segkit.tracking import Guarded, build_loggers, finish, log_ablation, log_panels, log_table


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    os.environ.pop("WANDB_SERVICE", None)  # for good: the process that it names ends with this test
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_ERROR_REPORTING", "WANDB_SILENT"):  # set by tracking itself; told to monkeypatch so that it cleans up
        monkeypatch.setenv(name, {"WANDB_ERROR_REPORTING": "false"}.get(name, "true"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "runs" / "scenes" / "20260112-101112-a1b2c3"
    folder.mkdir(parents=True)
    return folder


def read_run_file(folder):
    """The records of the one `.wandb` file: after 7 bytes, a LevelDB log, blocks of 32 KiB with fragments of (crc, length, kind)."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # waits for the service, which writes
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, content = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        content += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            record = Record()
            record.ParseFromString(content)
            yield record
            content = b""


def history(records):
    rows = [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item} for record in records]
    return [row for row in rows if row]


def test_an_offline_run_can_be_read_back(run_folder, make_task, make_trainer, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", "SECRET-ON-THE-COMMAND-LINE"])
    monkeypatch.setenv("SOME_PASSWORD", "SECRET-IN-THE-ENVIRONMENT")
    config = WandbConfig(project="house", group="ablation", tags=["mine"])
    loggers, line = build_loggers(config, run_folder, "the name", {"upsample": "transpose", "lr": 0.01}, ["unet", "transpose"], False)
    assert line == f"offline; sync with: wandb sync {next(run_folder.glob('wandb/offline-run-*'))}"
    callbacks = [Checkpoints(run_folder / "checkpoints"), PanelCallback(run_folder, 2)]
    make_trainer(callbacks, 4, val_every=2, logger=loggers, log_every_n_steps=1).fit(make_task(4))
    log_table(loggers, "test/classes", ["class", "IoU"], [["sky", 0.5], ["pole", float("nan")]], {"test/miou": 0.5})
    finish(loggers)

    records = list(read_run_file(run_folder))
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.run_id, run.project, run.run_group, run.display_name) == (run_folder.name, "house", "ablation", "the name")
    assert list(run.tags) == ["mine", "transpose", "unet"]
    given = {item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"}
    assert given == {"upsample": "transpose", "lr": 0.01}

    rows = history(records)
    losses = {row["trainer/global_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    kept = [dict(zip(*pair, strict=True)) for pair in zip_csv(run_folder / "metrics.csv")]
    assert losses == {int(row["step"]): pytest.approx(float(row["train/loss"])) for row in kept}
    assert sorted(losses) == [1, 2, 3, 4]
    assert [row["trainer/global_step"] for row in rows if "val/miou" in row] == [2, 4]
    assert all({"val/accuracy", "val/iou/sky", "val/iou/pole"} <= row.keys() for row in rows if "val/miou" in row)
    panels = [row for row in rows if "val/panels/count" in row]
    assert [(row["trainer/global_step"], row["val/panels/count"]) for row in panels] == [(2, 2), (4, 2)]
    assert set(panels[0]["val/panels/all_masks"][0]) == {"prediction", "truth"}
    assert rows[-1]["test/classes/nrows"] == 2
    summary = {item.key: json.loads(item.value_json) for record in records for item in record.summary.update}
    assert summary["test/miou"] == 0.5

    written = b"".join(path.read_bytes() for path in run_folder.rglob("*") if path.is_file())
    assert b"SECRET" not in written
    assert b'"ignored"' in written  # the masks' class names
    assert not any(record.HasField("environment") for record in records)
    assert run.host == "-"


def zip_csv(path):
    names, *rows = (line.split(",") for line in path.read_text().splitlines())
    return [(names, row) for row in rows]


def test_a_resumed_run_keeps_its_id(run_folder):
    for resume in (False, True):
        loggers, line = build_loggers(WandbConfig(), run_folder, "x", {}, [], resume)
        assert loggers[1].inner.experiment.id == run_folder.name
        finish(loggers)
        time.sleep(1 - time.time() % 1)  # wandb names the folder by the second
    assert line == f"offline; sync with: wandb sync {run_folder}/wandb/offline-run-*"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_disabled(run_folder, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("WANDB_MODE", "disabled")
    loggers, line = build_loggers(WandbConfig(mode="disabled" if how == "option" else "auto"), run_folder, "x", {}, [], False)
    assert line == "disabled"
    assert [logger.name for logger in loggers] == ["metrics.csv"]
    assert not (run_folder / "wandb").exists()


def test_wandb_need_not_be_installed(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    loggers, line = build_loggers(WandbConfig(), run_folder, "x", {}, [], False)
    assert line == "disabled: wandb is not installed (pip install wandb)"
    assert len(loggers) == 1


def test_a_failure_to_start_is_one_line(run_folder, monkeypatch):
    import wandb

    def fail(**kwargs):
        raise OSError("first line\nsecond line")

    monkeypatch.setattr(wandb, "init", fail)
    loggers, line = build_loggers(WandbConfig(), run_folder, "x", {}, [], False)
    assert line == "disabled: it did not start (first line)"
    assert len(loggers) == 1


def test_an_empty_mode_in_the_environment_is_none(run_folder, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "")
    loggers, line = build_loggers(WandbConfig(mode="offline"), run_folder, "x", {}, [], False)
    finish(loggers)
    assert line.startswith("offline; sync with: ")
    assert "WANDB_MODE" not in os.environ


def test_what_is_refused_is_said_without_the_value():
    import pydantic

    class Settings(pydantic.BaseModel):
        api_key: int

    with pytest.raises(pydantic.ValidationError) as error:
        Settings(api_key="secret")
    assert tracking.one_line(error.value).startswith("api_key: Input should be a valid integer")
    assert "secret" not in tracking.one_line(error.value)


@pytest.mark.parametrize("answer", ["refused", "silent"])
@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_server_that_does_not_answer_costs_the_time_out_and_no_more(run_folder, monkeypatch, mode, answer):
    monkeypatch.setattr(tracking, "INIT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, and never says a word
        port = server.getsockname()[1]
        if answer == "refused":
            server.close()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        start = time.monotonic()
        loggers, line = build_loggers(WandbConfig(mode=mode), run_folder, "x", {}, [], False)
        loggers[1].log_metrics({"a": 1.5}, 0)
        finish(loggers)
        assert time.monotonic() - start < 10  # not the minutes that wandb's own defaults take
    assert line.startswith("online failed (")
    assert "), so offline; sync with: wandb sync " in line
    assert "0123456789" not in line
    assert [row["a"] for row in history(read_run_file(run_folder)) if "a" in row] == [1.5]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("machine api.wandb.ai login user password " + "a" * 40, True),
        ("machine example.org login user password b", False),
        ("machine", False),
        ("machine \xff login", False),
    ],
)
def test_a_key_in_the_netrc_file_is_found(tmp_path, monkeypatch, content, found):
    import wandb

    (tmp_path / "keys").write_bytes(content.encode("latin-1"))
    monkeypatch.setenv("NETRC", str(tmp_path / "keys"))
    assert tracking._has_key(wandb.Settings(), wandb.Settings().base_url) is found


def test_a_key_in_the_environment_is_found():
    import wandb

    assert tracking._has_key(wandb.Settings(api_key="a" * 40), "")
    assert not tracking._has_key(wandb.Settings(), wandb.Settings().base_url)


def test_other_ranks_record_nothing(run_folder, monkeypatch):
    monkeypatch.setattr(tracking.rank_zero_only, "rank", 1)
    assert build_loggers(WandbConfig(), run_folder, "x", {}, [], False) == ([], "")
    monkeypatch.setattr(tracking.rank_zero_only, "rank", 0)
    monkeypatch.setenv("NODE_RANK", "1")
    assert build_loggers(WandbConfig(), run_folder, "x", {}, [], False) == ([], "")
    assert list(run_folder.iterdir()) == []


def test_a_recorder_that_fails_is_one_warning_and_the_run_goes_on(tmp_path, make_task, make_trainer, caplog):
    class Broken(FolderLogger):
        calls = 0

        def log_metrics(self, metrics, step=None):
            Broken.calls += 1
            raise OSError("No space left on device\nand more")

    task = make_task()
    make_trainer([], logger=[Guarded(Broken(tmp_path), "metrics.csv")]).fit(task)
    assert task.global_step == 12
    assert Broken.calls > 1
    messages = [record.getMessage() for record in caplog.records if record.name == "segkit.tracking" and record.levelno == logging.WARNING]
    assert messages == ["metrics.csv failed, training goes on without it: No space left on device"]


def test_panels_that_cannot_be_sent_are_a_warning(run_folder, caplog):
    loggers, _ = build_loggers(WandbConfig(), run_folder, "x", {}, [], False)
    image, mask = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    log_panels(loggers, 1, [image], [mask], [mask, mask], ["a"], 255, ["t"])
    assert "W&B failed, training goes on without it" in caplog.text


def summarise(folder, config=None, **changes):
    figure = folder / "forest.png"
    Image.new("RGB", (8, 6), (200, 30, 30)).save(figure)
    tables = {"arms": (["arm", "mean", "seed 0"], [["transpose", 0.5, 0.5], ["bilinear", None, "failed"]])}
    given = {"tables": tables, "figures": {"forest": figure}, "summary": {"bilinear/delta": -0.01, "bilinear/verdict": "worse"}, **changes}
    return log_ablation(config or WandbConfig(project="house"), folder, "operators", **given)


def test_an_ablation_is_one_run_of_its_group(run_folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ablate.py", "--token", "SECRET-ON-THE-COMMAND-LINE"])
    line = summarise(run_folder)
    assert line == f"offline; sync with: wandb sync {next(run_folder.glob('wandb/offline-run-*'))}"
    records = list(read_run_file(run_folder))
    (run,) = [record.run for record in records if record.HasField("run")]
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("house", "operators", "summary", "operators")
    (row,) = [row for row in history(records) if "arms/nrows" in row]
    assert (row["arms/nrows"], row["arms/ncols"]) == (2, 3)
    assert row["forest/_type"] == "image-file"
    (media,) = run_folder.glob("wandb/offline-run-*/files/media/images/*.png")
    assert np.array(Image.open(media)).tolist() == [[[200, 30, 30]] * 8] * 6
    (table,) = run_folder.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(table.read_text())["data"] == [["transpose", 0.5, 0.5], ["bilinear", None, "failed"]]
    summary = {item.key: json.loads(item.value_json) for record in records for item in record.summary.update}
    assert (summary["bilinear/delta"], summary["bilinear/verdict"]) == (-0.01, "worse")
    assert b"SECRET" not in b"".join(path.read_bytes() for path in run_folder.rglob("*") if path.is_file())
    assert not any(record.HasField("environment") for record in records)


def test_an_ablation_that_is_told_again_is_the_same_run(run_folder):
    ids = []
    for _ in range(2):
        line = summarise(run_folder)
        ids.append((run_folder / "wandb/summary_id.txt").read_text())
        time.sleep(1 - time.time() % 1)  # wandb names the folder by the second
    assert ids[0] == ids[1]
    assert len(list(run_folder.glob(f"wandb/offline-run-*/run-{ids[0].strip()}.wandb"))) == 2
    assert line == f"offline; sync with: wandb sync {run_folder}/wandb/offline-run-*"


def test_tracking_never_fails_an_ablation(run_folder, monkeypatch):
    assert summarise(run_folder, WandbConfig(mode="disabled")) == "disabled"
    assert not (run_folder / "wandb").exists()
    line = summarise(run_folder, figures={"forest": run_folder / "nowhere.png"})
    assert line.startswith("incomplete (")
    assert "; offline; sync with: wandb sync " in line
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert summarise(run_folder) == "disabled: wandb is not installed (pip install wandb)"
