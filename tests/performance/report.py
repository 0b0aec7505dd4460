"""Write what the benchmark measured: tables, plots, and the numbers behind them."""

import numpy as np
import torch

from bench.paths import replacing, write_text
from bench.report.style import INK, MUTED, theme


def write(folder, tables, agreement, environment):
    """Write report.md, the tables (ratios, scaling, profile, settings) as CSV, and the plots."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        write_text(folder / f"{name}.csv", frame.to_csv(index=False))
    ratios, scaling, profile = tables["ratios"], tables["scaling"], tables["profile"]
    exponents = {what: slope(own) for what, own in scaling.groupby("what", sort=False)}
    with theme():
        draw_ratios(ratios, folder / "ratios.png")
        draw_scaling(scaling, exponents, folder / "scaling.png")
        draw_profile(profile, folder / "profile.png")
    write_text(folder / "report.md", page(ratios, exponents, tables["settings"], agreement, environment))


def slope(own):
    """The exponent: slope of log seconds over log size, by least squares."""
    return float(np.polyfit(np.log(own["size"]), np.log(own["seconds"]), 1)[0])


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


def page(ratios, exponents, settings, agreement, environment):
    lines = [
        "# Speed",
        "",
        f"Made by `{environment['command']}`. Unless its name says otherwise a ratio is their",
        "seconds / ours, measured side by side in one run; the interval runs from the lowest to the highest",
        "repetition. fastai is measured where it is installed (`pip install fastai`).",
        "",
        "| what | median | low | high | target | met |",
        "|---|---:|---:|---:|---|---|",
    ]
    lines += [
        f"| {row.name} | {row.median:g} | {row.low:g} | {row.high:g} | {row.target} | {row.met} |"
        for row in ratios.itertuples()
    ]
    lines += ["", *(f"- {row.name}: {row.how}" for row in ratios.itertuples())]
    lines += ["", device_words(), "", "![ratios](ratios.png)", ""]
    if agreement:
        lines += [*accuracy_words(**agreement), ""]
    lines += ["## How cost grows", "", "| with | exponent |", "|---|---:|"]
    lines += [f"| {what} | {value:.2f} |" for what, value in exponents.items()]
    lines += ["", "![scaling](scaling.png)", "", "## Where the seconds go", "", "![profile](profile.png)", ""]
    lines += [
        "## Settings",
        "",
        "Seconds of a training step without and with a setting, both in turn, the least of three.",
        "channels_last is used everywhere. Compiling is not: `pays after` is how long a single shape would",
        "have to train until the time saved is what compiling cost.",
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


def save(figure, path):
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png", bbox_inches="tight")


def draw_ratios(ratios, path):
    from matplotlib.figure import Figure

    own = ratios[~ratios["name"].str.contains("minutes|seconds")].iloc[::-1]
    figure = Figure((8, 0.5 * len(own) + 1))
    axes = figure.subplots()
    targets = own["target"].str.split().str[-1].astype(float)
    places = np.arange(len(own))
    axes.hlines(places, own["low"], own["high"], color=INK, linewidth=2)
    axes.plot(own["median"], places, "o", color="#0072b2", label="measured (median, lowest to highest)")
    axes.plot(targets, places, "|", color="#c05400", markersize=16, markeredgewidth=2, label="target")
    axes.set(xscale="log", yticks=places, xlabel="ratio (logarithmic)")
    axes.set_yticklabels(own["name"])
    axes.axvline(1, color=MUTED, linewidth=0.8, zorder=0)
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.legend(loc="center right")
    save(figure, path)


def draw_scaling(scaling, exponents, path):
    from matplotlib.figure import Figure

    figure = Figure((8, 6), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (what, own) in zip(panels, scaling.groupby("what", sort=False), strict=True):
        axes.plot(own["size"], own["seconds"], "o-", color="#0072b2")
        axes.set(xscale="log", yscale="log", xlabel=what, ylabel="seconds")
        axes.set_xticks(own["size"], [str(size) for size in own["size"]])
        axes.minorticks_off()
        ticks = np.geomspace(own["seconds"].min(), own["seconds"].max(), 3)
        axes.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.set_title(f"exponent {exponents[what]:.2f}", loc="left", fontsize="medium")
    save(figure, path)


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
