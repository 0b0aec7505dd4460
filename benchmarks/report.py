"""Write what the benchmark measured: tables, plots, and the numbers behind them.

python -m benchmarks.report     draws the report in reports/performance anew, measures nothing
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.report.figures.style import INK, MUTED, theme
from bench.system.files import replacing, write_text

OTHERS = " / (?:tutorial|timm|fastai)"  # in the names of ratios: whose seconds are divided by ours
TABLES = ("ratios", "scaling", "profile", "settings")
IMAGES, PIXELS = "images (full, one epoch)", "image size, px (full, one epoch)"
TRIALS, IN_TURN = "trials (frozen)", "strategies (one trial, one seed, one epoch)"
ADDED = ("full", "partial", "discriminative", "scratch", "feature_extractor")  # one after the other
UNITS = {IMAGES: ("image", 1), PIXELS: ("square pixel", 2), TRIALS: ("trial", 1)}  # and its power of the size


@dataclass(frozen=True)
class Growth:
    """How seconds grow with a size.

    Args:
        fixed, each: of the straight line through them, by least squares: the cost whatever the size, and that
            of a unit.
        unit: what is counted.
        power: of the size, so that it counts units.
        exponent: of the last doubling: log of how often the seconds, by log of how often the size.
    """

    fixed: float
    each: float
    unit: str
    power: int
    exponent: float


def write(folder, tables, agreement, environment):
    """Write report.md, the tables (ratios, scaling, profile, settings) as CSV, and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    measured = {"agreement": agreement, "environment": environment}
    write_text(folder / "measured.json", json.dumps(measured, indent=2) + "\n")
    draw(folder)


def draw(folder):
    """Write report.md and the plots from what a folder holds of an earlier benchmark."""
    ratios, scaling, profile, settings = (pd.read_csv(folder / f"{name}.csv") for name in TABLES)
    measured = json.loads((folder / "measured.json").read_text())
    with theme():
        draw_ratios(ratios, folder / "ratios.png")
        draw_scaling(scaling, folder / "scaling.png")
        draw_profile(profile, folder / "profile.png")
    write_text(folder / "report.md", page(ratios, scaling, settings, **measured))


def growth(own, unit, power):
    """Return how the seconds of some sizes grow.

    A power law through all of them would take the fixed cost for slow growth.
    """
    each, fixed = np.polyfit(own["size"] ** power, own["seconds"], 1)
    seconds = own.set_index("size")["seconds"]
    last = seconds.index.max()
    half = min(seconds.index, key=lambda size: abs(size - last / 2))
    exponent = np.log(seconds[last] / seconds[half]) / np.log(last / half)
    return Growth(float(fixed), float(each), unit, power, float(exponent))


def strategies_added(own):
    """Return the seconds that each of the strategies added, or several together where it was not measured."""
    before, rows = 0, []
    for size, seconds in zip(own["size"], own["seconds"].diff().fillna(own["seconds"]), strict=True):
        rows.append((" and ".join(ADDED[before:size]), float(seconds)))
        before = size
    return rows


def device_words():
    if torch.cuda.is_available():
        return "The table is that of the CPU; the GPU of this machine was not used."
    return "No GPU was at hand: the table is that of a CPU."


def accuracy_words(tutorial, bench, images):
    """Say whether speed was bought with accuracy."""
    error = ((tutorial * (1 - tutorial) + bench * (1 - bench)) / images) ** 0.5
    if abs(bench - tutorial) <= 2 * error:
        verdict = "they agree within"
    elif bench > tutorial:
        verdict = "bench, which tunes, is ahead of the untuned loop by more than"
    else:
        verdict = "BENCH IS BEHIND by more than"
    return [
        f"Accuracy with frozen features on {images} held-out images: tutorial {tutorial:.3f},",
        f"bench {bench:.3f}: {verdict} two standard errors of a difference, {2 * error:.3f}.",
        "(The tutorial's is the best epoch on these images; bench chose on others.)",
    ]


def page(ratios, scaling, settings, agreement, environment):
    lines = [
        "# Speed",
        "",
        "How many times as fast as others, in turn on one machine:",
        "",
        "![ratios](ratios.png)",
        "",
        "## Every figure",
        "",
        f"Made by `{environment['command']}`. Unless its name says otherwise a ratio is their",
        "seconds / ours, measured side by side in one run; the interval runs from the lowest to the highest",
        "repetition. fastai is measured where it is installed (`pip install fastai`).",
        "",
        "| what | median | low | high | target | met |",
        "|---|---:|---:|---:|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.median:.4g} | {row.low:.4g} | {row.high:.4g} | {row.target} | {row.met} |"
        for row in ratios.itertuples()
    ]
    lines += ["", *(f"- {row.name}: {row.how}" for row in ratios.itertuples())]
    lines += ["", device_words(), ""]
    if agreement:
        lines += [*accuracy_words(**agreement), ""]
    lines += [*growth_words(scaling), "", "![scaling](scaling.png)", ""]
    lines += ["## Where the seconds go", "", "![profile](profile.png)", ""]
    lines += [
        "## Settings",
        "",
        "Seconds of a training step without and with a setting, both in turn, the least of three.",
        "channels_last is used everywhere. `pays after` is how long a single shape has to train until the",
        "time saved is what compiling cost: no study here does, so none of them is compiled.",
        "",
        "| setting | model | px | without (s) | with (s) | gain | cold start (s) | pays after (s) |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {r.setting} | {r.model} | {r.side} | {r.seconds_without:.3f} | {r.seconds_with:.3f} "
        f"| {r.gain:.2f} | {r.cold:.0f} | {'' if np.isnan(r.pays_after) else f'{r.pays_after:.0f}'} |"
        for r in settings.itertuples()
    ]
    lines += ["", "## Measured on", "", *(f"- {name}: {value}" for name, value in environment.items()), ""]
    return "\n".join(lines)


def growth_words(scaling):
    """Return the tables of how cost grows."""
    lines = [
        "## How cost grows",
        "",
        "A straight line through the seconds of all sizes (least squares), and the exponent of the last",
        "doubling.",
        "",
        "| with | fixed (s) | growing (s) | exponent |",
        "|---|---:|---:|---:|",
    ]
    for what, own in scaling.groupby("what", sort=False):
        if what in UNITS:
            g = growth(own, *UNITS[what])
            lines.append(f"| {what} | {g.fixed:.2g} | {g.each:.2g} per {g.unit} | {g.exponent:.2f} |")
    in_turn = scaling[scaling["what"] == IN_TURN]
    added = strategies_added(in_turn)
    first, last = in_turn.iloc[0], in_turn.iloc[-1]
    exponent = np.log(last["seconds"] / first["seconds"]) / np.log(last["size"] / first["size"])
    lines += ["", f"With {IN_TURN}, added one after the other; the first has all that a study needs:", ""]
    lines += ["| strategy | seconds more |", "|---|---:|"]
    lines += [f"| {names} | {seconds:.1f} |" for names, seconds in added]
    return [*lines, "", f"Over all of them the exponent is {exponent:.2f}; it depends on which are added."]


def save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png", bbox_inches="tight")


def draw_ratios(ratios, path):
    from matplotlib.figure import Figure

    own = ratios[ratios["name"].str.contains(OTHERS)].iloc[::-1]
    figure = Figure((8, 0.45 * len(own) + 1))
    axes = figure.subplots()
    places = np.arange(len(own))
    axes.barh(places, own["median"], 0.6, color="#0072b2")
    axes.hlines(places, own["low"], own["high"], color=INK, linewidth=2)
    for place, (value, high) in enumerate(zip(own["median"], own["high"], strict=True)):
        axes.text(max(value, high), place, f"  {value:.3g} times as fast", va="center")
    axes.set(xscale="log", yticks=places, xlabel="seconds of the other / ours (log scale)")
    axes.set_yticklabels(own["name"])
    axes.axvline(1, color=MUTED, linewidth=0.8, zorder=0)
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.margins(x=0.3)
    save(figure, path)


def draw_scaling(scaling, path):
    from matplotlib.figure import Figure

    figure = Figure((8, 6.4), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (what, own) in zip(panels, scaling.groupby("what", sort=False), strict=True):
        if what in UNITS:
            draw_growth(axes, own, growth(own, *UNITS[what]))
        else:
            draw_added(axes, own)
    save(figure, path)


def draw_growth(axes, own, found):
    sizes = np.linspace(own["size"].min(), own["size"].max(), 100)
    axes.plot(sizes, found.fixed + found.each * sizes**found.power, color=MUTED, linewidth=1)
    axes.plot(own["size"], own["seconds"], "o", color="#0072b2")
    axes.set(xscale="log", yscale="log", xlabel=f"{own['what'].iloc[0]} (log scale)")
    axes.set_ylabel("seconds (log scale)")
    axes.set_xticks(own["size"], [str(size) for size in own["size"]])
    axes.minorticks_off()
    ticks = np.geomspace(own["seconds"].min(), own["seconds"].max(), 3)
    axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
    words = f"{found.fixed:.2g} s + {found.each:.2g} s per {found.unit}"
    axes.set_title(
        f"{words}\nexponent of the last doubling {found.exponent:.2f}", loc="left", fontsize="medium"
    )


def draw_added(axes, own):
    names, seconds = zip(*reversed(strategies_added(own)), strict=True)
    axes.barh([name.replace(" and ", " and\n") for name in names], seconds, color="#0072b2")
    axes.set_xlabel("seconds more (one trial, one seed, one epoch)")
    axes.set_title(
        "strategies added in turn,\nthe first with all that a study needs", loc="left", fontsize="medium"
    )


def draw_profile(profile, path):
    from matplotlib.figure import Figure

    own = profile[profile["seconds"] > 0.005 * profile["seconds"].sum()].sort_values("seconds")
    figure = Figure((8, 0.35 * len(own) + 0.8))
    axes = figure.subplots()
    axes.barh(own["part"], own["seconds"], color="#0072b2")
    share = own["seconds"] / profile["seconds"].sum()
    for place, (value, part) in enumerate(zip(own["seconds"], share, strict=True)):
        axes.text(value, place, f" {value:.1f} s, {part:.0%}", va="center")
    axes.margins(x=0.2)
    axes.set(xlabel="seconds of small_similar with 2 trials, 2 seeds, 2 epochs, in one process")
    save(figure, path)


if __name__ == "__main__":
    draw(Path(*sys.argv[1:]) if sys.argv[1:] else Path("reports/performance"))
