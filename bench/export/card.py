"""A model's card: what it is, what it was trained on, how good it is, where it is wrong, how to load it.

After Mitchell et al. 2019, "Model cards for model reporting".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from bench.analysis.errors_by_class import confused
from bench.core.text import escape_markdown, in_bytes
from bench.data.framing import Fit
from bench.export.answers.base import answering
from bench.export.model_facts import ModelFacts
from bench.export.stored_model import StoredModel
from bench.strategies.registry import STRATEGIES
from bench.study.metrics import METRICS
from bench.study.tasks import TASKS
from bench.system.hardware import processor

if TYPE_CHECKING:
    from bench.export.exporting import Written

MOST_CLASSES, MOST_CONFUSIONS, MOST_HARD = 50, 5, 5
NO_SCORE = (
    "**It has no test score of its own**: it was trained on images that the run which it repeats was {by}. "
    "What stands below is of that run."
)
PREPARE = """\
import json
import numpy as np
{imports}
from PIL import Image, ImageOps

facts = json.load(open("model.json"))
side = facts["side"]
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
images = np.array({square})[None]
"""
SQUARES: Mapping[Fit, str] = {  # how Pillow makes them
    "crop": "ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)",
    "pad": 'ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, color="#808080")',
    "stretch": "image.resize((side, side), Image.Resampling.BICUBIC)",
}
PRINT = {
    True: 'print(facts["classes"][probabilities[0].argmax()], probabilities[0].max())\n',
    False: 'print(dict(zip(facts["classes"], probabilities[0])))\n',
}


def model_card(stored: StoredModel, facts: ModelFacts, written: "Sequence[Written]", tolerance: float) -> str:
    """Return the card, in Markdown; `tolerance`: by how much a probability of a form may have differed."""
    sections = [
        (f"`{facts.strategy}` on {escape_markdown(facts.data)}", _what_it_is(facts)),
        ("Data", _data(facts)),
        ("How good it is", _scores(stored, facts)),
        ("Where it is wrong", _errors(stored)),
        ("Files", _files(written, tolerance)),
        ("How to load it", _loading(facts, written)),
    ]
    first, *others = (f"{title}\n\n" + "\n".join(lines) for title, lines in sections)
    return "\n\n## ".join([f"# {first}", *others]) + "\n"


def _what_it_is(facts: ModelFacts) -> Iterator[str]:
    strategy = STRATEGIES[facts.strategy]
    summary, study = TASKS[facts.task].summary, escape_markdown(facts.study)
    yield f"{summary.capitalize()}: `{facts.source.model}`, {escape_markdown(strategy.summary)}."
    yield f"Trained by `bench` in the study {study} (seed {facts.seed}, run `{facts.run}`)."
    if facts.budget == "smoke":
        yield "**It is of a smoke test, which shows that everything works, and nothing more.**"
    if facts.steps is not None:
        by = "chosen by" if facts.trained_on == "train and val" else "chosen by and tested on"
        yield (
            f"It was trained anew on {facts.trained_on}, {facts.images:,} images, for {facts.steps:,} steps: "
            "the mean of those after which the seeds of its strategy were best on validation."
        )
        yield NO_SCORE.format(by=by)
    chosen = ", ".join(
        f"`{name}` {value if isinstance(value, str) else f'{value:.3g}'}"
        for name, value in facts.params.items()
    )
    yield f"\nHyperparameters: {chosen or 'none'}."
    yield (
        f"Input: RGB squares of {facts.side} pixels, uint8, shape (N, {facts.side}, {facts.side}, 3). "
        f"Output: probabilities, float32, shape {answering(facts.task).SHAPE}."
    )


def _data(facts: ModelFacts) -> Iterator[str]:
    named = [escape_markdown(name) for name in facts.classes[:MOST_CLASSES]]
    more = len(facts.classes) - len(named)
    yield f"- Images: {escape_markdown(facts.data)}, SHA-256 `{facts.digest}`"
    yield f"- Licence of the images: {escape_markdown(facts.licence) or 'not stated'}"
    yield f"- Classes ({len(facts.classes)}): {', '.join(named)}{f' and {more} more' if more else ''}"
    yield f"- Pretrained weights: {escape_markdown(facts.weights)}"


def _scores(stored: StoredModel, facts: ModelFacts) -> Iterator[str]:
    known, metric = stored.facts_with_interval.scores, METRICS[facts.scores.metric]
    of_run = "the run" if facts.steps is None else "the run that it repeats"
    if known.val is not None:
        yield f"- {metric.label} on validation, of {of_run}: {known.val:.3f}"
    if known.test is not None:
        yield f"- {metric.label} on test, of {of_run}: {known.test:.3f}"
    if known.strategy_test is not None:
        yield (
            f"- {metric.label} on test, of `{facts.strategy}`, mean over {known.seeds} "
            f"seed{'s' if known.seeds > 1 else ''}: {known.strategy_test:.3f}, 95 % interval "
            f"[{known.low:.3f}, {known.high:.3f}]"
        )
    if facts.temperature != 1:
        yield (
            f"- Calibration: probabilities are of logits divided by {facts.temperature:.3g}, which is fitted "
            "on validation (Guo et al. 2017)"
        )
    error = stored.run.metrics.get("test/calibration_error")
    if error is not None:
        summary = METRICS["calibration_error"].summary
        yield f"- Calibration error on test, of {of_run}: {error:.3f} ({summary})"


def _errors(stored: StoredModel) -> Iterator[str]:
    strategy, task = stored.facts.strategy, TASKS[stored.study.task]
    seeds = f"of the test images, over all seeds of `{strategy}`"
    if pairs := confused(stored.evidence, strategy)[:MOST_CONFUSIONS]:
        yield f"Classes confused most ({seeds}):\n"
        for pair in pairs:
            target, other = escape_markdown(pair.target), escape_markdown(pair.prediction)
            yield f"- {target} is taken for {other}: {pair.share:.0%} of the predictions for {target}"
        return
    results = [(one.recall[strategy], one) for one in stored.summary.classes if strategy in one.recall]
    if not results:
        yield "Nothing is known of single classes."
        return
    yield f"Classes with the lowest {task.class_score} ({seeds}):\n"
    for score, one in sorted(results, key=lambda pair: pair[0])[:MOST_HARD]:
        yield f"- {escape_markdown(one.name)}: {score:.3f} ({one.images} test images)"


def _files(written: "Sequence[Written]", tolerance: float) -> Iterator[str]:
    yield "| file | form | size | ms an image, p50 | p95 | largest difference |"
    yield "|---|---|---|---|---|---|"
    for one in written:
        yield (
            f"| `{one.format.file}` | {one.format.summary} | {in_bytes(one.size)} | {one.median:.1f} | "
            f"{one.slow:.1f} | {one.difference:.1g} |"
        )
    threads = torch.get_num_threads()
    yield (
        f"\nTimes are of one image at a time on {processor() or 'a processor'}, {threads} "
        f"thread{'s' if threads > 1 else ''}. The difference is that of a probability from the trained "
        f"model's, on test images one by one and together; nothing is written if it is above {tolerance:g}."
    )


def _loading(facts: ModelFacts, written: "Sequence[Written]") -> Iterator[str]:
    yield "`bench predict . photo.jpg`, or in Python, from this folder:"
    for one in written:
        prepare = PREPARE.format(imports=one.format.imports, square=SQUARES[facts.framing.fit])
        yield f"\n```python\n{prepare}{one.format.loading}{PRINT[TASKS[facts.task].one_class]}```"
