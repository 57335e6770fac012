"""The task: what a checkpoint carries, what a step computes, what stops a run."""

import copy
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader

from segkit.checkpoint import load_checkpoint, save_checkpoint
from segkit.config import IGNORE_INDEX, TrainerConfig
from segkit.errors import RunFailed, SegkitError
from segkit.losses import build_loss
from segkit.results import summary
from segkit.task import SegmentationTask
from segkit.trainer import build_trainer

NAMES, COLORS = ["a", "b", "c"], [(0, 0, 0), (255, 0, 0), (0, 255, 0)]


def make(**options):
    torch.manual_seed(0)
    return SegmentationTask(NAMES, COLORS, [0.5] * 3, [0.25] * 3, **{"decoder_channels": (8, 8), **options})


def batch(count=2, size=16, seed=0):
    rng = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=rng)
    mask = torch.randint(0, 3, (count, size, size), dtype=torch.uint8, generator=rng)
    mask[:, :2] = IGNORE_INDEX
    return {"image": image, "mask": mask, "index": torch.arange(count)}


def loader(*batches):
    return DataLoader(batches, batch_size=None)


def fit(task, batches, steps, **options):
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1, **options), max_steps=steps)
    trainer.fit(task, loader(*batches), loader(batch(seed=9)))
    return trainer


def test_pixels_are_normalised_on_the_device_by_hand():
    task = make()
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [(0 - 0.5) / 0.25, (0.2 - 0.5) / 0.25, (1 - 0.5) / 0.25]
    torch.testing.assert_close(task.normalize(image).flatten().tolist(), expected)
    assert task.normalize(batch()["image"]).is_contiguous(memory_format=torch.channels_last)


def test_sixteen_bits_are_shares_of_their_white():
    task = make(white=65535)
    image = torch.tensor([0, 13107, 40000, 65535], dtype=torch.uint16).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    expected = [(0 - 0.5) / 0.25, (0.2 - 0.5) / 0.25, (40000 / 65535 - 0.5) / 0.25, (1 - 0.5) / 0.25]
    torch.testing.assert_close(task.normalize(image)[0, 2].flatten().tolist(), expected)


def test_sixteen_bits_are_trained_scored_and_predicted_as_the_eight_that_they_were_scaled_from(tmp_path):
    small = [batch(seed=i) for i in range(3)]
    large = [{**part, "image": (part["image"].int() * 257).to(torch.uint16)} for part in small]
    tasks = make(), make(white=65535)
    for task, batches in zip(tasks, (small, large), strict=True):
        fit(task, batches, 3, val_every=3).save_checkpoint(tmp_path / f"{task.hparams['white']}.ckpt")
    for one, other in zip(tasks[0].model.parameters(), tasks[1].model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    eight, sixteen = (SegmentationTask.load(tmp_path / f"{white}.ckpt") for white in (255, 65535))
    assert sixteen.hparams["white"] == 65535
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    with torch.no_grad():
        logits = [
            task(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            for task, pixels in ((eight, image), (sixteen, image * np.uint16(257)))
        ]  # fmt: skip
    torch.testing.assert_close(*logits, rtol=1e-2, atol=1e-3)
    assert np.array_equal(sixteen.predict(image * np.uint16(257)), logits[1].argmax(1)[0].numpy())


def test_an_image_of_other_bits_or_channels_than_in_training_is_refused():
    image = np.zeros((8, 8, 3), np.uint8)
    for task, wrong, match in (
        (make(), image.astype(np.uint16), r"uint16 \[8, 8, 3\]; the network takes uint8 \[H, W, 3\]"),
        (make(white=65535), image, "network takes uint16"),
        (make(), image[..., :1], r"uint8 \[8, 8, 1\]; the network takes"),
        (make(), image[..., 0], r"uint8 \[8, 8\]; the network takes"),
    ):
        with pytest.raises(SegkitError, match=match):
            task.predict(wrong)


def test_a_checkpoint_from_before_there_were_sixteen_bits_loads(tmp_path):
    fit(make(), [batch()], 1).save_checkpoint(tmp_path / "a.ckpt")
    state = load_checkpoint(tmp_path / "a.ckpt")
    del state["hyper_parameters"]["white"]
    save_checkpoint(state, tmp_path / "old.ckpt")
    old, new = (SegmentationTask.load(tmp_path / name) for name in ("old.ckpt", "a.ckpt"))
    with torch.no_grad():
        assert torch.equal(old(batch()["image"]), new(batch()["image"]))


def test_the_training_loss_is_the_loss_of_the_model_on_normalised_images():
    task, data = make(loss="ce").eval(), batch()
    logits = task.model((data["image"] / 255 - 0.5) / 0.25)
    expected = nn.functional.cross_entropy(logits, data["mask"].long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(build_loss("ce", num_classes=3)(task(data["image"]), data["mask"]), expected)


def test_validation_counts_every_pixel_once_and_logs_the_loss_over_valid_pixels():
    task = make(loss="ce")
    data = [batch(2, 16, 1), batch(1, 24, 2)]
    data[1]["mask"][:, :20] = IGNORE_INDEX  # few valid pixels: the mean of means would be another number
    logged = build_trainer(TrainerConfig(accelerator="cpu", devices=1)).validate(task, loader(*data), verbose=False)[0]
    task.eval()
    matrix, losses, valid = np.zeros((3, 3), np.int64), [], []
    for part in data:
        with torch.no_grad():
            logits = task(part["image"])
        for truth, guess in zip(part["mask"].flatten().tolist(), logits.argmax(1).flatten().tolist(), strict=True):
            if truth != IGNORE_INDEX:
                matrix[truth, guess] += 1
        valid.append(int((part["mask"] != IGNORE_INDEX).sum()))
        losses.append(nn.functional.cross_entropy(logits, part["mask"].long(), ignore_index=IGNORE_INDEX).item())
    iou = [matrix[i, i] / (matrix[i].sum() + matrix[:, i].sum() - matrix[i, i]) for i in range(3)]
    assert task.validation_scores.iou == pytest.approx(iou)
    assert logged["val/miou"] == pytest.approx(np.mean(iou), rel=1e-6)
    assert logged["val/loss"] == pytest.approx(np.dot(losses, valid) / sum(valid), rel=1e-5)
    indices, matrices = task.per_image()
    assert indices.tolist() == [0, 1, 0]
    assert (matrices.sum(0) == matrix).all()
    scores, task.validation_loss = task.validation_scores, False
    again = build_trainer(TrainerConfig(accelerator="cpu", devices=1)).validate(task, loader(*data), verbose=False)[0]
    assert again == {key: value for key, value in logged.items() if key != "val/loss"}
    assert task.validation_scores == scores


def test_a_checkpoint_rebuilds_the_task_with_no_flags(tmp_path):
    task = make(upsample=("bilinear", "pixel_shuffle"), norm="group", class_weights=[1.0, 2.0, 0.5], loss="ce")
    task.run_config = {"seed": 3, "data": {"crop": 16}}
    trainer = fit(task, [batch()], 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = SegmentationTask.load(tmp_path / "a.ckpt")
    image = batch(seed=5)["image"]
    with torch.no_grad():
        assert torch.equal(loaded(image), task.eval()(image))
    assert (loaded.class_names, loaded.colors, loaded.step, loaded.run_config) == (NAMES, [list(c) for c in COLORS], 1, task.run_config)
    assert loaded.hparams["upsample"] == ["bilinear", "pixel_shuffle"]


def test_loading_never_fetches_or_reads_encoder_weights(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(1)
    import timm

    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    task = make(encoder="resnet18", encoder_weights=str(tmp_path / "w.safetensors"))
    fit(task, [batch(size=64)], 1).save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "w.safetensors").unlink()
    loaded = SegmentationTask.load(tmp_path / "a.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.state_dict().values(), task.model.state_dict().values(), strict=True))


def test_a_network_of_ones_own(tmp_path):
    task = make(model=nn.Conv2d(3, 3, 1))
    fit(task, [batch()], 1).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(SegkitError, match="does not fit this version"):
        SegmentationTask.load(tmp_path / "a.ckpt")
    loaded = SegmentationTask.load(tmp_path / "a.ckpt", model=nn.Conv2d(3, 3, 1))
    torch.testing.assert_close(loaded.model.weight, task.model.weight)


def test_a_checkpoint_of_something_else_is_named(tmp_path):
    save_checkpoint({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(SegkitError, match="does not fit this version of segkit"):
        SegmentationTask.load(tmp_path / "a.ckpt")


class Broken(nn.Module):
    """Logits, or gradients, that are not finite from the second call on."""

    def __init__(self, where):
        super().__init__()
        self.conv, self.where, self.calls = nn.Conv2d(3, 3, 1), where, 0

    def forward(self, x):
        self.calls += 1
        out = self.conv(x)
        if self.calls == 1:
            return out
        if self.where == "loss":
            return out * math.nan
        out.register_hook(lambda gradient: gradient * math.inf)
        return out


@pytest.mark.parametrize(("where", "match"), [
    ("loss", "the logits are not finite at step 1 on image 0, image 1; the weights"),
    ("gradient", "the gradient norm is (nan|inf) at step 1 on image 0, image 1; the weights"),
])  # fmt: skip
def test_what_is_not_finite_stops_the_run_before_the_update(where, match):
    task = make(model=Broken(where), loss="ce")
    with pytest.raises(RunFailed, match=match) as error:
        fit(task, [batch()] * 4, 4, val_every=4)
    assert "\n" not in str(error.value)
    assert "--lr" in str(error.value)
    assert torch.isfinite(task.model.conv.weight).all()


def test_the_gradient_norm_is_logged_and_clipped_by_hand():
    task = make(
        model=nn.Conv2d(3, 3, 1), loss="ce", optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, schedule="constant", warmup=0.0
    )
    before = torch.cat([p.detach().flatten() for p in task.parameters()]).clone()
    trainer = fit(task, [batch()], 1, clip=0.01, val_every=1)
    after = torch.cat([p.detach().flatten() for p in task.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)  # lr 1: the update is the clipped gradient
    assert trainer.callback_metrics["train/grad_norm"] > 0.01


def test_a_wrong_number_of_channel_statistics_is_refused():
    with pytest.raises(SegkitError, match="in_channels=1, but the normalisation has 3 means"):
        make(in_channels=1)


def test_prediction_of_one_image_is_the_label_map_at_its_size():
    task = make().train()  # batch normalisation would take the statistics of this one image
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    labels = task.predict(image)
    assert (labels.shape, labels.dtype) == ((21, 34), np.uint8)
    with torch.no_grad():
        assert (labels == task(torch.from_numpy(image).permute(2, 0, 1)[None]).argmax(1)[0].numpy()).all()


def test_a_grey_image_that_is_read_only_is_predicted_without_a_warning():
    image = np.random.default_rng(0).integers(0, 256, (21, 34, 1), dtype=np.uint8)
    task = SegmentationTask(NAMES, COLORS, [0.5], [0.25], in_channels=1, decoder_channels=(8, 8))
    labels = task.predict(image)
    image.flags.writeable = False  # as what is read from a file may be
    assert (task.predict(image) == labels).all()


def test_validation_and_prediction_take_the_scores_they_are_told_to():
    task, one = make(), batch()
    plain = task.validation_step(one, 0)
    assert torch.equal(plain["logits"], task(one["image"]))
    task.score = lambda images: task(images.flip(-1)).flip(-1)
    flipped = task.validation_step(one, 0)
    assert not torch.equal(flipped["logits"], plain["logits"])
    assert torch.equal(flipped["logits"], task(one["image"].flip(-1)).flip(-1))
    assert flipped["matrices"].shape == (2, 3, 3)
    assert flipped["matrices"].sum() == (one["mask"] != IGNORE_INDEX).sum()
    assert torch.equal(torch.from_numpy(task.per_image()[1][2:]), flipped["matrices"])
    assert "score" not in {name.split(".")[0] for name in task.state_dict()} | set(task.hparams)


def test_a_summary_is_json_with_no_nan():
    from segkit.metrics import scores

    values = summary(scores(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])), NAMES)
    assert values["iou"] == {"a": pytest.approx(3 / 4), "b": pytest.approx(4 / 5), "c": None}
    assert values["miou"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert values["absent"] == ["c"]


@pytest.mark.parametrize(("extra", "match"), [
    ({"limit_val_batch": 2}, "did you mean 'limit_val_batches'"),
    ({"precision": "32"}, "segkit sets this argument itself"),
    ({"accelerator": "cpu"}, "segkit sets this argument itself"),
])  # fmt: skip
def test_extra_trainer_arguments_are_checked(extra, match):
    with pytest.raises(SegkitError, match=match):
        build_trainer(TrainerConfig(extra=extra))


def test_half_precision_on_a_cpu_is_refused_and_so_is_unknown_hardware():
    with pytest.raises(SegkitError, match="use bf16-mixed"):
        build_trainer(TrainerConfig(accelerator="cpu", precision="16-mixed"))
    with pytest.raises(SegkitError, match="Lightning refuses"):
        build_trainer(TrainerConfig(accelerator="abacus"))


def test_the_last_step_is_validated_even_where_the_interval_does_not_divide_the_budget():
    from segkit.trainer import Validations

    class Steps(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_validation_end(self, trainer, pl_module):
            self.seen.append(trainer.global_step)

    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1, val_every=3), max_steps=7)
    steps = Steps()
    trainer.callbacks += [Validations(), steps]
    trainer.fit(make(), loader(*[batch()] * 7), loader(batch()))
    assert steps.seen == [3, 6, 7]


def test_checkpoint_holds_plain_values_only(tmp_path):
    trainer = fit(make(), [batch()], 1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = load_checkpoint(tmp_path / "a.ckpt")
    assert set(state) >= {"state_dict", "hyper_parameters", "config", "global_step", "optimizer_states"}
    assert not [k for k in state["state_dict"] if not k.startswith("model.")]


def test_another_number_of_processes_cannot_go_on_with_a_run(tmp_path):
    fit(make(), [batch()], 1).save_checkpoint(tmp_path / "a.ckpt")
    state = load_checkpoint(tmp_path / "a.ckpt")
    assert state["processes"] == 1
    save_checkpoint({**state, "processes": 4}, tmp_path / "b.ckpt")
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1), max_steps=2)
    with pytest.raises(SegkitError, match="trained by 4 processes; with 1 its batches would change"):
        trainer.fit(make(), loader(batch()), loader(batch()), ckpt_path=tmp_path / "b.ckpt")
    SegmentationTask.load(tmp_path / "b.ckpt")  # evaluation does not mind


def test_group_norms_are_exact_in_the_layout_of_channels_last():
    torch.manual_seed(0)
    names, colors = ["a", "b"], [[0, 0, 0], [1, 1, 1]]
    task = SegmentationTask(names, colors, [0.5] * 3, [0.2] * 3, decoder_channels=[8], norm="group").eval()
    image = torch.randint(20, 24, (1, 3, 512, 512), dtype=torch.uint8)  # dark and even: means far from 0, deviations small
    with torch.inference_mode():
        found = task(image)
        expected = copy.deepcopy(task.model).double()(task.normalize(image).double())
    assert task.memory_format == torch.channels_last
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_a_step_draws_what_torch_s_own_seed_gives():
    task, drawn = make(), []
    task._seed(2**63 + 5)
    drawn.append(torch.rand(9))
    torch.manual_seed(2**63 + 5)
    assert torch.equal(torch.rand(9), drawn[0])


class Rows(Logger):
    """Keeps what it is given, and the losses of all batches; tells the run to end after a step."""

    name = version = "rows"

    def __init__(self):
        super().__init__()
        self.rows, self.losses = [], []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))

    def log_hyperparams(self, params, *args, **kwargs):
        pass


@pytest.mark.parametrize(("accumulate", "end", "expected"), [(1, 9, [1, 3]), (1, 3, [1, 2]), (3, 9, [1, 3])])
def test_the_values_of_a_step_are_written_once_and_the_last_ones_of_a_run_that_is_told_to_end(accumulate, end, expected):
    """Steps are numbered from 0, as Lightning does it: every second one is written, by the last of its batches."""
    task, logger = make(loss="ce", norm="group", schedule="constant", warmup=0.0), Rows()
    trainer = build_trainer(TrainerConfig(accelerator="cpu", devices=1, accumulate=accumulate, log_every=2, val_every=99), max_steps=5)
    trainer.loggers = [logger]

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
            logger.losses.append(outputs["loss"].item() * accumulate)
            trainer.should_stop = trainer.should_stop or trainer.global_step == end

    trainer.callbacks.append(Watch())
    trainer.fit(task, loader(*[batch(seed=i) for i in range(5 * accumulate)]), loader(batch(seed=9)))
    rows = [(step, row) for step, row in logger.rows if "train/loss" in row]
    assert [step for step, _ in rows] == expected
    for step, row in rows:
        assert row.keys() == {"train/loss", "train/grad_norm", "train/lr"}
        assert row["train/loss"] == pytest.approx(logger.losses[(step + 1) * accumulate - 1], rel=1e-6)
        assert row["train/lr"] == pytest.approx(3e-3)
