"""The README is true: its code runs, its commands parse, its files exist, its numbers are those of the code."""

import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from torch.distributed.run import get_args_parser

from segkit.benchmark.calls import build, cost, inputs
from segkit.benchmark.operator_table import FIRST, LAST, initial_index
from segkit.checkpoint import save_checkpoint
from segkit.cli import ablate
from segkit.cli.arguments import Arguments
from segkit.cli.parsing import Parser, options
from segkit.cli.visualize import FIGURES
from segkit.config import AblateConfig, BenchmarkConfig, CheckConfig, EvalConfig, ExportConfig, PredictConfig, TrainConfig, from_dict
from segkit.models import UNet
from segkit.task import SegmentationTask
from segkit.upsampling import UPSAMPLERS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = {
    "train": TrainConfig, "eval": EvalConfig, "ablate": AblateConfig, "check_data": CheckConfig, "predict": PredictConfig,
    "export": ExportConfig, "benchmark": BenchmarkConfig,
} | {name: kind for name, (kind, _) in FIGURES.items()}  # fmt: skip
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (found[1], found[2].split("#")[0].split()) for text in (*SHELL, *re.findall(r"`([^`\n]+)`", README))
    for found in re.finditer(r"^(?:[^\n#]*?python |torchrun [^\n]*?)scripts/(\w+)\.py([^\n&']*)", text, re.MULTILINE)
]  # fmt: skip


def test_the_blocks_are_found():
    assert len(PYTHON) == README.count("```python") == 3
    assert len(SHELL) == README.count("```bash") == 8
    assert {script for script, _ in COMMANDS} == {path.stem for path in (ROOT / "scripts").glob("*.py")}


@pytest.mark.parametrize("code", PYTHON, ids=["api", "load", "hash"])
def test_the_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "segkit.load" in code:
        run_on_an_image(code, tmp_path)
        return
    short = code.replace('DataConfig(kind="scenes")', 'DataConfig(kind="scenes", scenes_val=2)').replace("max_steps=400", "max_steps=2")
    names = {}
    exec(compile(short, "README.md", "exec"), names)
    if "prediction" in names:
        assert short != code
        assert names["prediction"].shape == names["mask"].shape
        assert names["task"].trainer.global_step == 2
        assert isinstance(names["network"].stages[0].upsample, names["Bicubic"])
    else:
        first, second = capsys.readouterr().out.split()
        assert first == second
        assert len(first) == 64


def run_on_an_image(code, folder):
    """The two lines of `segkit.load`, on a run and an image that are there."""
    network = UNet(2, encoder="plain", decoder_channels=(8,))
    task = SegmentationTask(["a", "b"], [[0, 0, 0], [9, 9, 9]], [0.5] * 3, [0.5] * 3, decoder_channels=[8])
    task.model.load_state_dict(network.state_dict())
    state = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams), "global_step": 0}
    save_checkpoint(state, folder / "runs/NAME/ID/checkpoints/last.ckpt")
    pixels = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    names = {}
    exec(compile(code.replace("image.jpg", "image.png"), "README.md", "exec"), names)
    assert names["mask"].dtype == np.uint8
    assert np.array_equal(names["mask"], task.eval().predict(pixels))


@pytest.mark.parametrize(("script", "words"), COMMANDS, ids=[" ".join([script, *words]) for script, words in COMMANDS])
def test_the_commands_parse(script, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if script == "ablate":
        if words[0] != "report":
            config = ablate.read(words)
            assert len(config.axes["upsample"]) > 1
            assert config.executor == ("ray" if "ray" in words else "local")
        return
    if script == "visualize":
        script, *words = words
    if script == "predict":
        parser = Arguments(PredictConfig, "", "")
        parser.add_word("run", "")
        parser.add_word("images", "", several=True)
        config, given = parser.read(words)
        assert config.out == "DIR"
        assert given["images"] == ["image_or_folder"]
        return
    while words and not words[0].startswith("--"):
        words = words[1:]  # runs
    parser = Parser(CONFIGS[script], "", file=script == "train")
    if script == "train":
        parser.add_argument("--resume")
    values = parser.read(words)
    config = from_dict(CONFIGS[script], {name: value for name, value in values.items() if name != "resume"})
    typed = [word[2:].split("=")[0] for word in words if word.startswith("--")]
    fields = {name for name, _ in options(CONFIGS[script])}
    assert [name for name in typed if name not in fields | {"config", "resume"}] == []
    changed = config != CONFIGS[script]() or words == ["--format", "onnx"]  # which is the default
    assert changed or not set(typed) & (fields | {"config"})  # what was typed has arrived


def test_the_options_exist():
    known = {name for config in CONFIGS.values() for name, _ in options(config)} | {"config", "help", "resume"}
    ours = re.sub(r"^(torchrun|sbatch) .*?(?=scripts/)", "", README, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--([a-z][\w.]*)", ours)) - {"cluster."}  # followed by the name of a parameter of submitit or Ray
    extra = {name for name in named if name.startswith("trainer.extra.")}
    assert {name.rsplit(".", 1)[1] for name in extra} <= set(inspect.signature(pl.Trainer).parameters)
    assert named - known - extra == set()
    assert {"upsample", "data.root", "trainer.devices", "wandb.mode"} <= named


def test_torchrun_and_slurm_start_as_many_processes_as_the_configuration_wants():
    launchers = {line.split()[0]: shlex.split(line) for line in README.splitlines() if line.startswith(("torchrun --", "sbatch --"))}
    torchrun = get_args_parser().parse_args(["0" if word == "N" else word for word in launchers["torchrun"][1:]])
    sbatch = dict(zip(launchers["sbatch"], launchers["sbatch"][1:], strict=False))
    trainer = yaml.safe_load((ROOT / "configs/multi_node.yaml").read_text())["trainer"]
    assert trainer["devices"] == "auto"
    assert trainer["num_nodes"] == int(torchrun.nnodes) == int(sbatch["--nodes"])
    assert int(torchrun.nproc_per_node) == int(sbatch["--ntasks-per-node"]) == int(sbatch["--gpus-per-node"])
    _, _, launched = sbatch["--wrap"].partition(" python ")
    words = [torchrun.training_script_args, shlex.split(launched)[1:]]
    assert torchrun.training_script == shlex.split(launched)[0] == "scripts/train.py"
    assert words[0] == [word.replace("$SLURM_JOB_ID", "ID") for word in words[1]]  # one command, two ways to start it


def test_the_files_exist_and_the_pictures_are_small():
    named = set(re.findall(r"\b(?:segkit|configs|scripts|tests|docs|\.ci)/[\w./]*\w/?", README))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 6
    assert all(10_000 < (ROOT / name).stat().st_size < 300_000 for name in pictures)


def test_ci_installs_and_tests_as_the_readme_says():
    install, test = SHELL[1].strip().split(" && ")[2:]
    steps = (ROOT / ".ci/run").read_text().splitlines()
    assert install in steps
    assert steps[-1] == test
    assert install in SHELL[0]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def rows(text):
    """The rows of a table of operators: name -> cells."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in cells if row[0].strip("`") in UPSAMPLERS}


DEFINED, MEASURED = README.split(FIRST)[0], README.split(FIRST)[1].split(LAST)[0]  # `tests/test_costs.py` computes the formulas


def test_the_tables_list_every_operator():
    assert set(rows(DEFINED)) == set(rows(MEASURED)) == set(UPSAMPLERS)


@pytest.mark.parametrize("name", sorted(UPSAMPLERS))
def test_the_table_of_measured_operators(name):
    _, parameters, macs, _, before, after, exported, repeats = rows(MEASURED)[name]
    operator = build(UPSAMPLERS[name], 64, 32)
    counted = cost(operator, inputs(operator, torch.zeros(1, 64, 64, 64), 32))
    assert (parameters, macs) == (f"{counted['params']:,}", f"{counted['MACs'] / 1e6:,.1f} M")
    assert before == f"{initial_index(UPSAMPLERS[name], 0):.2f}"
    assert 0 <= float(after) <= 1
    assert {exported, repeats} == {"yes"}
