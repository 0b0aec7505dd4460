"""What is known of a model outside the run store: enough to build it again, and to say where it is from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bench.core.errors import InputError
from bench.core.runs import Value
from bench.core.versions import EXPORT
from bench.data.framing import AS_IT_IS, Framing
from bench.study.schema import Head, Part, Source

Trained = Literal["train", "train and val", "all labels"]
Triple = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]


class Scores(Part):
    """What is known of how good a model is, by its study's metric.

    Args:
        val, test: of the run itself. None: it has none of its own.
        strategy_test, low, high, seeds: mean test value of its strategy over so many seeds, and the ends of
            its 95 % interval. None: no interval is known.
    """

    metric: str
    val: float | None = None
    test: float | None = None
    strategy_test: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0


class ModelFacts(Part):
    """A model and where it is from.

    Args:
        study, strategy, seed, params, run: which run trained it, or chose what it was trained by.
        budget: of that run: of a smoke test nothing follows.
        trained_on: which images; of all but `train` no score of its own is known.
        images, steps: so many it was trained on, for so many steps of optimisation; of a refit.
        classes: their names, in the order of the probabilities.
        framing: how pictures become squares.
        side: pixels of the squares that it is given, which the data were kept at.
        image_size: pixels of the square that is shown to the network.
        readout: how many leading stages its head reads behind; None: all.
        mean, std: of the input normalisation, of pixels in 0 to 1.
        temperature: by which logits are divided, fitted on validation; 1 where nothing was fitted.
        data, digest, licence: of the images that it was trained on.
        weights: where the source's are from, in words.
    """

    version: Literal[1] = EXPORT
    study: str
    task: str
    strategy: str
    seed: int
    params: dict[str, Value]
    run: str
    budget: str = "default"
    trained_on: Trained = "train"
    images: int | None = None
    steps: int | None = None
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    framing: Framing = AS_IT_IS
    side: Annotated[int, Field(ge=1, le=4096)]
    image_size: Annotated[int, Field(ge=16, le=1024)]
    source: Source
    head: Head
    readout: int | None = None
    mean: Triple
    std: Triple
    temperature: Annotated[float, Field(gt=0)] = 1.0
    data: str = ""
    digest: str = ""
    licence: str = ""
    weights: str = ""
    scores: Scores

    @property
    def in_words(self) -> str:
        """Which model it is, in a line."""
        refit = "" if self.trained_on == "train" else f", trained on {self.trained_on}"
        smoke = "; of a smoke test, which shows that it works and nothing more" * (self.budget == "smoke")
        return f"{self.study}: {self.strategy}, seed {self.seed}{refit}{smoke}"


def read_facts(file: Path) -> ModelFacts:
    """Return the facts that a file holds.

    Raises:
        InputError: if it can't be read, or holds something else.
    """
    try:
        return ModelFacts.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", str(file)) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        what = f"describes no model that this version can load ({key}: {first['msg'].lower()})"
        raise InputError(what, str(file), "export it again") from error
