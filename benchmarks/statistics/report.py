"""What was simulated: checks against their targets, the cells behind them, and a figure."""

import pandas as pd

from bench.report.figures.style import INK, MUTED, WIDE, theme
from bench.system.files import replacing, write_text
from benchmarks.statistics.simulation import EQUAL, MARGIN

LOW, HIGH, ERROR = 0.93, 0.97, 0.055
PANELS = {
    "strategy": ("interval of a strategy: coverage", LOW, HIGH),
    "difference": ("interval of a difference: coverage", LOW, HIGH),
    "alarm": (f"any of {EQUAL} equal strategies told apart", 0.0, ERROR),
    "equivalent": ("called equivalent, though the margin apart", 0.0, ERROR),
}
LOOKS = {3: ("#c05400", "^"), 5: ("#0072b2", "o"), 10: ("#00805d", "s")}
TEXT = """# How often verdicts are wrong

Made by `make statistics`: {studies:,} studies in each of {cells} cells, drawn from a model whose truth is
known and judged by the functions that judge real ones. Cells: 3, 5 and 10 seeds; accuracy differs between
seeds with a standard deviation of 0.005, 0.01, 0.02 or 0.03; 700 independent test images, or 128 groups of
7, 44 of 15, 19 of 50; accuracy 0.6, 0.8, 0.9 or 0.97. Five strategies are equal, a sixth is worse by the
margin, {margin:g}.

| check | value | target | met |
|---|---:|---|---|
{rows}

![Each cell's rate beside its target](errors.png)

A point is a cell, the band is the target. [checks.csv](checks.csv) has the table, [cells.csv](cells.csv)
every cell, [alike.csv](alike.csv) those whose seeds have up to half of their training images in common (all
that seeds differ by comes from these there), [metrics.csv](metrics.csv) other metrics, on three classes of
uneven size in 40 groups of 12.

- **Coverage** is of intervals of 95 %. False alarms: in how many studies any two of the equal strategies
  were told apart, among themselves and beside the sixth. Equivalent, not worse: how often a pair was called
  that which is {margin:g} apart.
- Chance alone moves a rate of 0.05 or of 0.95 by some {chance:.3f} to either side.
- With 3 seeds, and where training images are in common, intervals are conservative: what is not known is not
  claimed.
{above}"""
ABOVE = """- In {count} of the cells, at an accuracy of {accuracies}, intervals of differences cover more than
  {high:g}. Seeds are skewed there, as some do much worse than the rest, and a t interval of what is skewed is
  too wide. It is left so: what would narrow it there is too narrow elsewhere.
"""


def checks(tables):
    """Return name, value, target and whether it is met, of each check."""
    cells, alike, metrics = tables["cells"], tables["alike"], tables["metrics"]
    many, few = cells[cells["seeds"] > 3], cells[cells["seeds"] == 3]
    rows = []

    def least(name, values):
        rows.append((name, values.min(), f">= {LOW:g}", values.min() >= LOW))

    def most(name, values, target=ERROR):
        rows.append((name, values.max(), f"<= {target:g}", values.max() <= target))

    for column in ("strategy", "difference"):
        least(f"coverage of a {column}, 5 and 10 seeds, lowest cell", many[column])
        most(f"coverage of a {column}, 5 and 10 seeds, highest cell", many[column], HIGH)
        least(f"coverage of a {column}, 3 seeds, lowest cell", few[column])
    most(f"false alarms of {EQUAL} equal strategies, highest cell", cells["alarm"])
    most("false alarms beside a sixth that differs, highest cell", cells["alarm beside a sixth"])
    most(f"equivalent though {MARGIN:g} apart, highest cell", cells["equivalent"])
    most(f"not worse though worse by {MARGIN:g}, highest cell", cells["not worse"])
    for column in ("strategy", "difference"):
        least(f"coverage of a {column}, training images in common, lowest cell", alike[column])
    for row in metrics.itertuples():
        least(f"coverage of {row.metric}, uneven classes in groups", pd.Series([row.coverage]))
    return pd.DataFrame(rows, columns=["name", "value", "target", "met"])


def write(folder, tables, studies):
    """Write checks.csv, the tables behind it, report.md and the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    found = checks(tables)
    write_text(folder / "checks.csv", found.to_csv(index=False))
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    with theme():
        draw(tables["cells"], folder / "errors.png")
    write_text(folder / "report.md", page(found, tables["cells"], studies))


def page(found, cells, studies):
    rows = [
        f"| {row.name} | {row.value:.3f} | {row.target} | {'yes' if row.met else 'no'} |"
        for row in found.itertuples()
    ]
    return TEXT.format(
        studies=studies,
        cells=len(cells),
        margin=MARGIN,
        rows="\n".join(rows),
        chance=2 * (0.05 * 0.95 / studies) ** 0.5,
        above=_above(cells[(cells["seeds"] > 3) & (cells["difference"] > HIGH)]),
    )


def _above(cells):
    if cells.empty:
        return ""
    accuracies = " or ".join(f"{value:g}" for value in sorted(cells["accuracy"].unique()))
    return ABOVE.format(count=len(cells), high=HIGH, accuracies=accuracies)


def draw(cells, path):
    from matplotlib.figure import Figure

    figure = Figure((WIDE, 5.2), layout="constrained")
    kinds = list(dict.fromkeys(cells["grouped"]))
    for axes, (column, (title, low, high)) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        axes.axhspan(low, high, color=MUTED, alpha=0.15, linewidth=0)
        for place, (seeds, (colour, marker)) in enumerate(LOOKS.items()):
            own = cells[cells["seeds"] == seeds]
            x = own["grouped"].map(kinds.index) + 0.25 * (place - 1)
            axes.plot(x, own[column], marker, color=colour, markersize=3.5, alpha=0.6, label=f"{seeds} seeds")
        axes.set_title(title, loc="left", fontsize="medium", color=INK)
        axes.set_xticks(range(len(kinds)), ["no groups" if kind == "none" else kind for kind in kinds])
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")
