"""`visualize.py`: figures of what operators do."""

from collections.abc import Sequence

from segkit.cli.parsing import Parser
from segkit.config import OperatorFigureConfig, from_dict
from segkit.errors import SegkitError, unknown

DESCRIPTION = "Draw a figure. operator: what upsampling operators do to one pixel, to an edge and to a flat image, a row each."
FIGURES = ("operator",)


def main(args: Sequence[str]) -> None:
    """Parses `args` and draws."""
    parser = Parser(OperatorFigureConfig, DESCRIPTION, file=False)
    parser.add_argument("figure", nargs="?", metavar="FIGURE", help=f"which figure: {', '.join(FIGURES)}")
    values = parser.read(args)
    figure = values.pop("figure")
    if figure is None:
        raise SegkitError(f"no figure named; give one first: visualize.py {FIGURES[0]}")
    if figure not in FIGURES:
        raise unknown("figure", figure, FIGURES)
    draw_operator(from_dict(OperatorFigureConfig, values))


def draw_operator(config: OperatorFigureConfig) -> None:
    """Writes the figure of upsampling operators and prints their parameters and operator indices."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from segkit.figures import draw_operators, measure_operator, save

    rows = [measure_operator(name, config) for name in config.upsample]
    save(draw_operators(rows, config), config.out)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for column in ("operator", "parameters", *(f"CI {init}" for init in rows[0].index)):
        table.add_column(column, justify="left" if column == "operator" else "right")
    for row in rows:
        table.add_row(row.name, f"{row.parameters:,}", *(f"{index:.2f}" for index in row.index.values()))
    console = Console()
    console.print(table)
    console.print(f"figure  {config.out}", soft_wrap=True, highlight=False)
