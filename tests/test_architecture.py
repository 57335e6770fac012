"""The import directions of the package: who may know whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "segkit"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "torch",
    "pytorch_lightning",
    "numpy",
    "cv2",
    "wandb",
    "albumentations",
    "timm",
    "segmentation_models_pytorch",
    "matplotlib",
    "PIL",
}


def imports(path, top_level_only=False):
    """Full names of the modules that a file imports; names under `if TYPE_CHECKING` do not count."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else [n for n in ast.walk(tree)]
    typing_only = {
        n for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) for n in ast.walk(node)
    }
    for node in nodes:
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def room(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


# what the files of a room may import of segkit
ALLOWED = {
    "errors": set(),
    "architectures": {"errors"},
    "config": {"errors", "architectures", "config"},
    "runs": {"errors"},
    "upsampling": {"errors", "upsampling"},
    "models": {"errors", "architectures", "unpickle", "upsampling", "models"},
    "losses": {"errors", "config", "ranks"},
    "metrics": {"errors", "config", "metrics"},
    "optim": {"errors"},
    "ranks": set(),
    "unpickle": {"runs"},
    "yaml_file": {"errors"},
    "plausible": {"errors", "config"},
    "checkpoint": {"errors", "runs", "unpickle"},
    "peers": {"errors"},
    "stopping": {"errors", "ranks"},
    "data": {"errors", "config", "data"},
    "task": {
        "errors", "architectures", "config", "checkpoint", "losses", "metrics", "models", "optim", "plausible", "ranks", "step_values",
        "tally", "watch",
    },
    "tally": {"errors", "metrics", "ranks"},
    "watch": {"models", "ranks"},
    "step_values": set(),
    "trainer": {"errors", "config", "checkpoint"},
    "provenance": {"config", "data", "measures", "models", "optim", "runs"},
    "preflight": {"errors", "config", "data", "models"},
    "costs": {"errors", "models", "upsampling"},
    "results": {"metrics", "runs", "task"},
    "measures": {"measures", "metrics", "models", "results"},
    "web_page": {"errors"},
    "gallery": {"panels", "web_page"},
    "ablation": {"errors", "architectures", "config", "runs", "figures", "web_page", "yaml_file", "ablation"},
    "panels": set(),
    "figures": {"errors", "config", "figures", "metrics", "models", "upsampling"},
    "console": {"errors"},
    "progress": {"console"},
    "metrics_file": set(),
    "wandb_service": set(),
    "tracking": {"errors", "config", "metrics_file", "wandb_service"},
    "callbacks": {"errors", "step_values", "tracking", "panels"},
    "inference": {"errors", "config", "data", "metrics", "panels", "runs", "task", "inference"},
    "onnx_model": {"errors", "data", "inference"},
    "export": {"errors", "config", "models", "plausible", "upsampling", "task", "runs", "onnx_model", "export"},
    "doctor": {"errors", "config", "data", "panels", "runs", "web_page", "doctor"},
    "__init__": {"inference"},
    # above all but the commands; not `ablation` and `doctor`, of which nothing is measured
    "benchmark": {
        "errors", "config", "runs", "architectures", "upsampling", "models", "losses", "metrics", "measures", "optim", "data", "task",
        "trainer", "provenance", "inference", "export", "figures", "costs", "benchmark", "__init__",
    },
}  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_knows_only_the_rooms_below_it(path):
    known = {name.split(".")[1] for name in imports(path) if name.startswith("segkit.")}
    if room(path) != "cli":  # which may know everything
        assert known <= ALLOWED[room(path)]


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("wandb", {"tracking"}),
        ("albumentations", {"data", "benchmark"}),
        ("timm", {"models"}),
        ("matplotlib", {"figures"}),
        ("segmentation_models_pytorch", {"models", "benchmark"}),
        (
            "pytorch_lightning",
            {
                "task",
                "trainer",
                "benchmark",
                "callbacks",
                "stopping",
                "peers",
                "provenance",
                "progress",
                "step_values",
                "tracking",
                "checkpoint",
                "data",
                "cli",
                "metrics_file",
                "measures",
            },
        ),
    ],
)
def test_a_library_is_imported_in_one_place(library, places):
    users = {room(path) for path in FILES if any(name.split(".")[0] == library for name in imports(path))}
    assert users <= places


@pytest.mark.parametrize(
    "name",
    [
        *(f"config/{path.stem}" for path in sorted((PACKAGE / "config").glob("*.py"))),
        "errors",
        "runs",
        "cli/parsing",
        "cli/resuming",
        "cli/train",
        "cli/eval",
        "cli/visualize",
        "cli/benchmark",
        "cli/ablate",
        "cli/axes",
        "cli/costs",
        "cli/scoring",
        "cli/showing",
        "cli/compare",
        "cli/check_data",
        "cli/predict",
        "cli/export",
        "cli/arguments",
        "cli/options",
        "cli/running",
        "cli/surroundings",
        "cli/progress_line",
        "inference/__init__",
        "inference/inputs",
        "inference/claims",
        "ablation/plan",
        "ablation/trial",
        "ablation/run",
        "__init__",
    ],
)
def test_what_a_command_line_needs_before_it_is_understood_is_light(name):
    assert not {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py", top_level_only=True)} & HEAVY


def test_matplotlib_is_imported_where_it_is_used_and_without_its_global_state():
    for path in FILES:
        assert not any(name.startswith("matplotlib") for name in imports(path, top_level_only=True))
    assert not any("pyplot" in name for path in FILES for name in imports(path))


def test_every_script_only_calls_its_command():
    scripts = sorted((PACKAGE.parent / "scripts").glob("*.py"))
    assert scripts
    for script in scripts:
        assert (PACKAGE / "cli" / script.name).is_file()
        assert len(script.read_text().splitlines()) < 15
