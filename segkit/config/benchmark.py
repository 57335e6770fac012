"""Options of the benchmark."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from segkit.config.choices import Peer, Upsample
from segkit.config.rules import within


@dataclass(kw_only=True)
class BenchmarkConfig:
    """segkit measured beside its peers.

    Args:
        against: libraries to compare with; one that is not installed is left out
        upsample: operators: those that are timed; default: all. train: those of the networks; default: transpose, transpose_k2, and
            smp's U-Net in segkit's form
        device: hardware to run on; auto: a graphics card where there is one
        precision: arithmetic of segkit, and of peers where they are compared under the same
        threads: threads of a CPU; default: as torch chooses
        clock: wall: the time that passes; cpu: that of the processors, which other jobs on a busy machine disturb less
        seconds: about how long each thing is measured; 0: once, to see that it works
        size: side of the images in pixels; default: operators: 16, 64 and 128; train, fit, infer: 256; eval: 512; tile: 4096; scaling:
            256 and below
        batch: images per step; default: 4; fit, eval: 8
        images: fit, data, eval: how many images there are; default: 64, 64 and 24
        workers: fit: loader processes; data: loader processes that are measured beside none
        root: data: folder with images/train and masks/train to read; default: made-up photographs of 480 x 360
        window: tile: side of a tile in pixels
        compile: compile the networks with torch.compile
        table: operators: file whose table between <!-- operators --> and <!-- /operators --> is written anew
        table_steps: operators: training steps behind the index after training in that table
        seed: decides all random numbers
        out: folder for benchmark-NAME.json and benchmark-NAME.png
    """

    against: list[Peer] = field(default_factory=lambda: list(get_args(Peer)))
    upsample: list[Upsample] = field(default_factory=list)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    threads: int | None = None
    clock: Literal["wall", "cpu"] = "wall"
    seconds: float = 3.0
    size: int | None = None
    batch: int | None = None
    images: int | None = None
    workers: int = 0
    root: str | None = None
    window: int = 512
    compile: bool = False
    table: str | None = None
    table_steps: int = 150
    seed: int = 0
    out: str = "benchmarks"

    def __post_init__(self) -> None:
        within("", self, 1, None, "threads", "batch", "table_steps", "images")
        within("", self, 0, None, "workers")
        within("", self, 0, 3600, "seconds")
        within("", self, 8, 65536, "size")
        within("", self, 32, 4096, "window")
        within("", self, 0, 2**63 - 1, "seed")
