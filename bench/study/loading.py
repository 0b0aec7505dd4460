"""Studies by name or path: found, read, checked, overridden, written."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bench.core.errors import InputError, closest, nearest
from bench.study.budgets import (
    Budget,
    apply_budget,
)
from bench.study.safe_yaml import (
    LONGEST,
    parse_yaml,
)
from bench.study.schema import (
    Part,
    Study,
)

log = logging.getLogger(__name__)


def folders() -> list[Path]:
    """Where named studies are looked for: the current folder's `studies/` first, then the packaged ones."""
    package = Path(__file__).parents[1]
    return [f for f in (Path("studies"), package / "_studies", package.parent / "studies") if f.is_dir()]


def available() -> dict[str, Path]:
    """Return the named studies, `small_similar` or `reference/small_similar`, and their files."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.rglob("*.yaml")):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return dict(sorted(found.items(), key=lambda item: (item[0].count("/"), item[0])))


# What pydantic finds wrong with a value, by the type of its error.
WRONG = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be {expected}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have {max_length} letters or fewer",
    "string_pattern_mismatch": "must have the form {pattern}",
    "tuple_type": "must be a list",
    "too_short": "must have {min_length} values or more",
    "too_long": "must have {max_length} values or fewer",
    "model_type": "must be a mapping of keys to values",
}
FILES = {".yaml", ".yml"}  # of studies, by suffix
DATA_OR_STUDY = {*FILES, ".csv"}
# What is set on the command line takes the place of the other, wherever that was set.
INSTEAD = {"training.steps": "training.epochs", "training.epochs": "training.steps"}


def is_file_of_study(text: str) -> bool:
    """Say whether a text is the path of a study's file, there or not."""
    return Path(text).suffix in FILES


def find(name_or_path: str) -> Path:
    """Return the file of a study given by name or by path; raise InputError for neither."""
    named = available()
    if name_or_path in named:
        return named[name_or_path]
    path, is_file = Path(name_or_path), is_file_of_study(name_or_path)
    if (is_file or os.sep in name_or_path) and path.is_file():
        return path
    neither = f"'{name_or_path}' is neither a study nor a folder or table of images"
    what = f"there is no study file {path}" if is_file else neither
    raise InputError(what, "", _nearest_of(name_or_path, named))


def _nearest_of(text: str, named: Iterable[str]) -> str:
    """Name the nearest study; if none is near, the folder or file that may have been meant."""
    above, separator, last = text.rpartition(os.sep)
    folder, beside = Path(os.path.expanduser(f"{above}{separator}")), []  # noqa: PTH111 - pathlib's own raises
    with suppress(OSError):
        beside = [path.name for path in folder.iterdir() if path.is_dir() or path.suffix in DATA_OR_STUDY]
    other = None if closest(text, named) else closest(last, beside)
    return f"did you mean '{above}{separator}{other}'?" if other else nearest(text, named)


def load(name_or_path: str, overrides: Iterable[str] = (), budget: Budget = "default") -> Study:
    """Read and check a study.

    Args:
        name_or_path: a name that `bench list studies` shows, or the path of a YAML file.
        overrides: `key=value` with dotted keys (`training.steps=600`); they win over file and budget.
        budget: preset of trials, seeds, steps and labels.

    Raises:
        InputError: for anything that is not a valid study, naming file and key.
    """
    path = find(name_or_path)
    values = _read(path)
    values.setdefault("name", _name_of(path))
    return resolve(values, str(path), overrides, budget)


def resolve(values: dict[str, Any], where: str, overrides: Iterable[str], budget: Budget) -> Study:
    """Return the study of some values, at a budget and with overrides; `where` names them in an error."""
    study = apply_budget(_validate(values, where), budget)
    if not (changes := list(overrides)):
        return study
    values = study.model_dump(mode="json")
    for instead in {INSTEAD[key] for change in changes if (key := change.partition("=")[0]) in INSTEAD}:
        _override(values, f"{instead}=null")
    for change in changes:
        _override(values, change)
    return _validate(values, f"{where} with --set")


def _name_of(path: Path) -> str:
    """Return a study's name from its file's; what can't be part of a name becomes `_`, which is said."""
    stem = path.stem if path.parent.name != "reference" else f"reference_{path.stem}"
    name = safe_name(stem, "study")
    if name != stem:
        log.warning("%s: the study is called %s; a key `name` in the file would say otherwise", path, name)
    return name


def safe_name(text: str, kind: str) -> str:
    """Return a text as the name of a study: what can't be part of one becomes `_`, `kind` may begin it."""
    name = re.sub(r"[^\w.\-]+", "_", text)
    return name if re.match("[A-Za-z0-9]", name) else f"{kind}_{name.lstrip('_.-')}"


def parse(text: str, where: str) -> Study:
    """Return the study that `as_yaml` wrote; `where` names the text, should it be unusable."""
    return _validate(_values(text, where), where)


def as_yaml(study: Study) -> str:
    """Return the study with every value resolved."""
    values: dict[str, Any] = study.model_dump(mode="json")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:
            return _values(file.read(LONGEST + 1), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error})", str(path)) from error


def _values(text: str, where: str) -> dict[str, Any]:
    try:
        values = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        what = str(getattr(error, "problem", None) or error)[:200]
        raise InputError(f"is not valid YAML{place}: {what}", where) from error
    if not isinstance(values, dict):
        raise InputError("is not a mapping of keys to values", where, "see studies/small_similar.yaml")
    return values


def _override(values: dict[str, Any], change: str) -> None:
    """Set one dotted key in place; intermediate keys may be absent (they are checked later)."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise InputError(f"'{change}' is not KEY=VALUE", "--set", "for example --set training.steps=600")
    try:
        value = parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"the value of '{key}' is not valid YAML", "--set") from error
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        nested = values[parent]
        if not isinstance(nested, dict):
            raise InputError(f"'{parent}' in '{key}' has no keys of its own", "--set")
        values = nested
    values[last] = value


def _validate(values: dict[str, Any], where: str) -> Study:
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: ValidationError, where: str) -> InputError:
    """Turn pydantic's first complaint into one line: file, key, what, nearest valid key."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"] if not str(part).startswith("<")]  # a form of a value
    key = ".".join(location) or "study"
    if first["type"] == "extra_forbidden":
        return InputError(f"unknown key '{key}'", where, _nearest_key(location))
    if first["type"] == "missing":
        return InputError(f"the key '{key}' is missing", where)
    message = _sentence(first)
    key = ".".join(part for part in location if part.isidentifier() or part.isdecimal()) or "study"
    given = "" if isinstance(first["input"], dict | Part) else f" (given: {str(first['input'])[:60]!r})"
    others = error.error_count() - 1
    more = f" and {others} more mistake{'s' * (others > 1)}" if others else ""
    return InputError(f"{key}: {message}{given}{more}", where)


def _sentence(error: Mapping[str, Any]) -> str:
    """Return in our words what is wrong with a value; a validator of ours has said it itself."""
    said = WRONG.get(error["type"])
    return said.format(**error.get("ctx", {})) if said else error["msg"].removeprefix("Value error, ")


def _nearest_key(location: list[str]) -> str:
    """Return a remedy for an unknown key: the whole one that may have been meant, here or elsewhere."""
    *above, last = location
    here = {name: ".".join([*above, name]) for name in _fields(above)}
    everywhere = {key.rpartition(".")[2]: key for key in _keys(Study)}
    if last in everywhere:
        return f"did you mean '{everywhere[last]}'?"
    for valid in (here, everywhere):
        if close := closest(last, valid):
            return f"did you mean '{valid[close]}'?"
    return nearest(last, here)


def _keys(part: type[Part], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings."""
    for name, field in part.model_fields.items():
        inside = _part_types(field.annotation)
        yield from _keys(inside[0], f"{prefix}{name}.") if inside else [f"{prefix}{name}"]


def _fields(location: list[str]) -> list[str]:
    """Return the valid keys at a place of the schema."""
    part: Any = Study
    for name in location:
        part = next((t for t in _part_types(part.model_fields[name].annotation)), part)
    return list(part.model_fields)


def _part_types(annotation: Any) -> list[type[Part]]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [c for c in candidates if isinstance(c, type) and issubclass(c, Part)]
