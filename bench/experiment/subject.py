"""What a command is about: a study, a study on other data, or data alone, for which a study is made up."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import InputError
from bench.data import loading as data_loading
from bench.data import splits
from bench.data.sources.base import SOURCES
from bench.experiment import made_up
from bench.experiment.made_up import MadeUp
from bench.experiment.time_budget import Images, TimeLimit, fit_to_minutes
from bench.study.budgets import Budget
from bench.study.loading import available, is_file_of_study, load
from bench.study.schema import Study, with_changes
from bench.system.command_line import as_typed, with_home
from bench.system.locations import expanded
from bench.tracking.store_uri import shown

ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"}
DEFAULT_BUDGET: Budget = "default"
ALL = "all"  # studies of classification on packaged data: what they measure can be compared
NAMED = "a study (see `bench list`), or a folder or table of images"


@dataclass(frozen=True)
class Subject:
    """What was named.

    Args:
        study: a name, a file, or `all`; empty: data alone were named.
        data: a folder or a table, absolute; None: the study's own.
    """

    study: str = ""
    data: Path | None = None

    @property
    def words(self) -> str:
        """The same as a command has it."""
        data = with_home(str(self.data)) if self.data else ""
        return " --data ".join(filter(None, (shlex.quote(self.study) if self.study else "", data)))


@dataclass(frozen=True)
class Draft:
    """A study as far as it is known before any data are opened.

    Args:
        study: on the data that are asked for.
        written_for: the `target.data` of the study's file; empty: there is none.
        given: keys of the settings that the command sets.
    """

    study: Study
    written_for: str
    given: frozenset[str]


def subject_of(argument: str | None, study: str | None, data: str | None) -> Subject:
    """Return what a command is about, by its argument and the options `--study` and `--data`.

    An existing folder or a `.csv` is data; all else is a study, known or not.

    Raises:
        InputError: if nothing is named, one thing twice, or something that can only be a mistake.
    """
    if argument is not None and _is_data(argument):
        if data is not None:
            raise InputError(f"{argument} and {data} are both data", "--data", "name one of them")
        data = argument
    elif argument is not None:
        if study is not None:
            raise InputError(f"{argument} and {study} are both studies", "--study", "name one of them")
        study = argument
    if not (study or data):
        raise InputError(f"nothing is named; give {NAMED}")
    return Subject(study or "", _existing(data) if data else None)


def _is_data(text: str) -> bool:
    """Say whether an argument can only be data; a folder with the name of a study may be either."""
    path = expanded(text)
    is_data = path.is_dir() or path.suffix.lower() in {".csv", *ARCHIVES}
    if is_data and (text == ALL or text in available()):
        remedy = f"say ./{text} for the folder, or --study {text}"
        raise InputError(f"'{text}' is a study and a folder here", "", remedy)
    return is_data


def _existing(text: str) -> Path:
    """Return the absolute path of data."""
    path = expanded(text)
    if path.suffix.lower() in ARCHIVES and not path.is_dir():
        raise InputError(f"{text} is an archive", "data", "unpack it, and name the folder that this gives")
    if not path.exists():
        raise InputError(f"there is no folder or table {text}", "data", "give one that exists")
    if path.is_file() and path.suffix.lower() != ".csv":
        raise InputError(f"{text} is a file", "data", "give a folder of images, or a table of them (.csv)")
    return path.resolve()


def drafts(subject: Subject, overrides: Sequence[str], budget: Budget) -> list[Draft]:
    """Return the studies that are asked for; every mistake in them that needs no data is found here."""
    given = frozenset(change.partition("=")[0] for change in overrides)
    if not subject.study:
        assert subject.data, "a subject has a study or data"
        return [Draft(made_up.draft(subject.data, overrides, budget), "", given)]
    files = [str(path) for path in available().values()] if subject.study == ALL else [subject.study]
    found = []
    for file in files:
        written_for, study = load(file).target.data, load(file, overrides, budget)
        if subject.data:
            study = with_changes(study, target=with_changes(study.target, data=str(subject.data)))
        if subject.study != ALL or (written_for in SOURCES and "/" not in written_for):
            found.append(Draft(study, written_for, given))
    return found


def settle(draft: Draft, limit: TimeLimit | None = None) -> MadeUp:
    """Return a study with all that its data, and the time there is, decide.

    The data are opened unless they are those of the study's file, and there is time enough.

    On other data it is another study: its name says which, so that no two data sets share an experiment, a
    report or a registered model.
    """
    study, own = draft.study, draft.written_for
    if not own:
        return made_up.fitted(study, draft.given, limit)
    chosen: list[tuple[str, str]] = []
    if limit:
        parts = splits.split(data_loading.load(study.target, task=study.task), study.target, 1)
        images = Images(len(parts.train), len(parts.val), len(parts.test))
        study, words = fit_to_minutes(study, limit, draft.given, [study.target.image_size], images)
        chosen.append(("time", words))
    if study.target.data == own:
        return MadeUp(study, tuple(chosen))
    dataset = data_loading.load(study.target, task=study.task)
    if Path(study.target.data).name != Path(own).name:  # else they are what it was written for, elsewhere
        study = made_up.moved(study, dataset, draft.given)
    return MadeUp(made_up.with_digest(study, dataset), tuple(chosen))


def study_name(text: str, budget: Budget) -> str:
    """Return the name of the study that a text means: its file's, that made up for data, or itself."""
    if _is_data(text):
        (draft,) = drafts(subject_of(text, None, None), [], budget)
        return settle(draft).study.name
    return load(text).name if is_file_of_study(text) else text


def predict_command(study: Study, budget: str, tracking_uri: str | None) -> str:
    """Return the command that predicts a study's images: those of its folder, or else its test images."""
    words = ["bench", "predict", study.name]
    if expanded(study.target.data).is_dir():
        words.append(study.target.data)
    words += ["--budget", budget] if budget != DEFAULT_BUDGET else []
    words += ["--tracking-uri", tracking_uri] if tracking_uri else []
    return shown(as_typed(words))


def is_stored_name(subject: Subject) -> bool:
    """Say whether a subject can only be the name of a study that was run, whose file is not at hand."""
    text = subject.study
    has_file = text == ALL or text in available() or is_file_of_study(text) or "/" in text
    return bool(text) and subject.data is None and not has_file
