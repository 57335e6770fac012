"""The report, section by section: what was found, how, and what cannot be concluded from it."""

from collections.abc import Collection, Mapping

from segkit.ablation import tables
from segkit.ablation.compare import Analysis
from segkit.ablation.document import Block, Document, Facts, Items, Log, Notice, Paragraph, Picture, Section, Verdicts
from segkit.ablation.fairness import RECORDS, groups, may_differ
from segkit.ablation.limits import limits
from segkit.ablation.numbers import several
from segkit.ablation.pictures import stage_names
from segkit.ablation.protocol import protocol
from segkit.ablation.study import look_up
from segkit.ablation.verdicts import class_verdicts, noise, verdicts

CAPTIONS = {
    "runs": ("Every run: a mark each, a thin line per seed, a bar at the mean of each arm.", "mIoU of every run, by arm"),
    "differences": (
        "Difference of mIoU to the baseline. Thick: 95 % interval for new seeds and images. Thin: two-level bootstrap. Ticks: seeds. "
        "Grey: margin.",
        "forest plot of the differences of mIoU",
    ),
    "boundary_differences": ("Difference of boundary mIoU to the baseline, as above.", "forest plot of the differences of boundary mIoU"),
    "latency": ("Mean mIoU over the latency of one image; bars span the runs.", "mIoU against latency"),
    "parameters": ("Mean mIoU over the number of parameters; arms of one size stand side by side.", "mIoU against parameters"),
    "classes": (
        "Difference of each class's IoU to the baseline, with 95 % intervals; thin: two-level bootstrap.",
        "differences of IoU by class",
    ),
    "trimap": ("mIoU of the pixels near true boundaries; bars span the runs.", "trimap mIoU over the distance"),
    "trimap_differences": ("The same, seed by seed less the baseline; bars span the seeds.", "trimap mIoU less the baseline's"),
    "operator_index": ("Checkerboard of each operator: hollow at initialisation, filled after training.", "operator index by stage"),
    "network_index": ("Checkerboard of the trained logits at each period. Null periods show the noise.", "network index by period"),
    "spectrum": ("Power spectrum of the trained logits. Dotted: the grids of one to five stages of scale 2.", "spectrum of the logits"),
    "images": (
        "The images on which an arm is farthest from the baseline by the image's mean IoU, averaged over seeds: in per cent for the "
        "baseline, as a difference in points for the others. Predictions of one seed; the square enlarged; lines are true boundaries.",
        "images on which arms differ most",
    ),
}  # fmt: skip


def compose(analysis: Analysis, drawn: Collection[str], no_images: str = "") -> Document:
    """The report of a study.

    Args:
        analysis: What was found.
        drawn: The figures that there are.
        no_images: Why the figure of images is not among them.
    """
    study = analysis.study
    pictures = {name: Picture(name, *CAPTIONS[name]) for name in drawn}
    done, every = len(study.of_state("finished")), sum(len(arm.runs) for arm in study.arms)
    axes = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in study.plan.axes.items())
    subtitle = f"{axes}. {done} of {several(every, 'run')} finished, on {study.plan.data['description']}."
    sections = [
        Section("Verdict", _verdict(analysis, pictures)),
        Section("Protocol", [Facts(protocol(study))]),
        Section("Arms", [tables.arms_table(study), tables.cost_table(study), *_some(pictures, "latency", "parameters")]),
        Section("Differences", _differences(analysis)),
        Section("Classes", _classes(analysis, pictures)),
        Section("Boundaries", _boundaries(analysis, pictures)),
        Section("Artefacts", _artefacts(analysis, pictures)),
        Section("Where the arms differ", _some(pictures, "images") or [Paragraph(f"No images: {no_images}")]),
        Section("Failed and unfinished runs", _missing(analysis)),
        Section("Fairness", _fairness(analysis)),
        Section("What cannot be concluded", [Items(limits(analysis))]),
    ]
    return Document("Report of an ablation", study.plan.name, subtitle, sections)


def _some(pictures: Mapping[str, Picture], *names: str) -> list[Picture]:
    return [pictures[name] for name in names if name in pictures]


def _verdict(analysis: Analysis, pictures: Mapping[str, Picture]) -> list[Block]:
    blocks: list[Block] = []
    if analysis.unfair:
        texts = [str(found) for found in analysis.unfair]
        title = "The comparison is not fair: verdicts are withheld where arms differ in what they should share"
        blocks.append(Notice(title, texts, "error"))
    blocks.append(Verdicts(verdicts(analysis)))
    if missing := len(analysis.study.of_state("failed", "unfinished")):
        shared = "each arm is compared on the seeds that it and the baseline have finished, so a difference may not be that of the means"
        interim = " Verdicts are provisional until all runs are finished." if analysis.study.of_state("unfinished") else ""
        blocks.append(Paragraph(f"{several(missing, 'run')} missing: {shared}.{interim}"))
    return [*blocks, *_some(pictures, "runs", "differences")]


def _differences(analysis: Analysis) -> list[Block]:
    found = analysis.proper("miou")
    if not found:
        return [Paragraph("There is nothing to compare yet: the baseline and another arm need a finished run of one seed.")]
    blocks: list[Block] = [tables.contrast_table(analysis, found, "mIoU")]
    again = [c for c in analysis.comparisons.values() if c.arm.aa]
    blocks += [Paragraph(noise(c)) for c in again]
    return blocks


def _classes(analysis: Analysis, pictures: Mapping[str, Picture]) -> list[Block]:
    if not any(c.classes for c in analysis.comparisons.values()):
        return [Paragraph("No arm can be compared class by class yet.")]
    return [tables.class_table(analysis), *_some(pictures, "classes"), Verdicts(class_verdicts(analysis))]


def _boundaries(analysis: Analysis, pictures: Mapping[str, Picture]) -> list[Block]:
    if not any(arm.values("boundary", "miou") for arm in analysis.study.arms):
        return [Paragraph("No finished run has boundary measures.")]
    blocks: list[Block] = [tables.boundary_table(analysis.study)]
    if found := analysis.proper("boundary"):
        blocks = [Verdicts(verdicts(analysis, "boundary")), tables.contrast_table(analysis, found, "boundary mIoU"), *blocks]
    return [*blocks, *_some(pictures, "boundary_differences", "trimap", "trimap_differences")]


def _artefacts(analysis: Analysis, pictures: Mapping[str, Picture]) -> list[Block]:
    study = analysis.study
    if not any(look_up(run.scores, "artefacts") for _, run in study.of_state("finished")):
        return [Paragraph("No finished run has artefact measures.")]
    stages = "; ".join(f"{place} is {name}" for place, name in enumerate(stage_names(study), 1))
    about = "0 where a flat input stays flat, 1 where nothing but a grid is left of it."
    blocks: list[Block] = [Paragraph(f"{about} Stages: {stages}." if stages else about), tables.index_table(study)]
    return [*blocks, *_some(pictures, "operator_index", "network_index", "spectrum")]


def _missing(analysis: Analysis) -> list[Block]:
    study = analysis.study
    failed, unfinished = study.of_state("failed"), study.of_state("unfinished")
    if not failed and not unfinished:
        return [Paragraph("None: every run of the plan is finished.")]
    blocks: list[Block] = []
    if failed:
        blocks.append(tables.failure_table(study))
        blocks += [Log(f"{arm.name}, seed {run.seed}", [str(line) for line in run.failure.get("log", ())]) for arm, run in failed]
    if unfinished:
        named = ", ".join(f"{arm.name} seed {run.seed}" for arm, run in unfinished)
        blocks.append(Paragraph(f"Not finished, {several(len(unfinished), 'run')}: {named}."))
    return blocks


def _fairness(analysis: Analysis) -> list[Block]:
    study, blocks = analysis.study, list[Block]()
    if analysis.unfair:
        blocks.append(Notice("Differences that nobody asked for", [str(found) for found in analysis.unfair], "error"))
    elif not study.of_state("finished"):
        return [Paragraph("Nothing to hold against each other yet.")]
    elif not any(len(group) > 1 for seed in study.plan.seeds for group in groups(study, seed, "truth")):
        blocks.append(Paragraph("No seed has two finished arms yet, so there is nothing to hold against each other."))
    else:
        blocks.append(
            Paragraph(
                "Within each seed all finished arms recorded the same initial weights outside the operators, sample order, augmented "
                "batches, schedule, software, code and device, but for what an axis changes by design. Compared is what each run really "
                "used."
            )
        )
    named = {axis: ", ".join(RECORDS[record] for record in may_differ(axis)) for axis in study.plan.axes}
    designed = [f"{axis} may change: {records or 'nothing of this'}." for axis, records in named.items()]
    if any(arm.aa for arm in study.arms):
        designed.append("A/A: other seeds, so other initial weights, order and batches.")
    return [*blocks, Items(designed), tables.hash_table(study)]
