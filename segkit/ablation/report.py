"""The report of an ablation: `report.md`, `report.html`, `table.tex`, `results.csv` and `figures/`, from whatever is finished."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from segkit.ablation.compare import Analysis, analyse
from segkit.ablation.files import latex, results_csv
from segkit.ablation.html import html
from segkit.ablation.markdown import markdown
from segkit.ablation.pictures import NAMES, Predict, draw
from segkit.ablation.sections import compose
from segkit.ablation.study import Study
from segkit.ablation.tables import score_rows
from segkit.ablation.verdicts import verdicts
from segkit.figures.report import svg
from segkit.figures.style import save
from segkit.runs import cannot_write


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        files: All files, `report.html` first.
        problems: What makes the comparison unfair, a line each; an ablation that has any did not succeed.
    """

    files: list[Path]
    problems: list[str]


@lru_cache(maxsize=1)
def _analysis(study: Study) -> Analysis:
    """The analysis of a study, which is known by its identity."""
    return analyse(study)


def write_report(study: Study, folder: Path, predict: Predict | None = None) -> Report:
    """Writes everything that can be said so far.

    Args:
        study: From `load_study`.
        folder: For the files; an earlier report there is replaced.
        predict: What a run predicts for an image, for the figure of the images on which arms differ; None leaves it out.

    Raises:
        SegkitError: A file cannot be written.
    """
    analysis = _analysis(study)
    figures, missing = draw(analysis, predict)
    document = compose(analysis, figures, missing)
    pages = {
        "report.html": html(document, {name: svg(figure) for name, figure in figures.items()}),
        "report.md": markdown(document),
        "table.tex": latex(analysis),
        "results.csv": results_csv(study),
    }
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from None
    drawn = [folder / "figures" / f"{name}.{suffix}" for name in NAMES for suffix in ("pdf", "png")]
    for path in drawn:
        if path.stem in figures:
            save(figures[path.stem], path)
        else:
            path.unlink(missing_ok=True)  # of an earlier report
    written = [path for path in drawn if path.stem in figures]
    return Report([*(folder / name for name in pages), *written], [str(found) for found in analysis.unfair])


def headline(study: Study) -> list[str]:
    """The verdict on every arm, a sentence each, for a terminal; what is unfair comes first."""
    analysis = _analysis(study)
    return [f"not fair: {found}" for found in analysis.unfair] + [told for _, told in verdicts(analysis)]


def headline_table(study: Study) -> tuple[list[str], list[list[str]]]:
    """Mean mIoU, every seed, difference, interval and verdict of each arm: a header and a row per arm."""
    return score_rows(_analysis(study))
