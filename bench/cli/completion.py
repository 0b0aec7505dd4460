"""What the shell is offered behind a command: studies and folders, strategies, keys of settings, devices."""

from collections.abc import Iterable, Iterator
from pathlib import Path


def subjects(incomplete: str) -> list[str]:
    """Return the studies, folders and tables that begin so."""
    from bench.study.loading import available

    return [*_beginning(["all", *available()], incomplete), *_paths(incomplete)]


def studies(incomplete: str) -> list[str]:
    """Return the studies that begin so, and YAML files."""
    from bench.study.loading import available

    return [*_beginning(["all", *available()], incomplete), *_paths(incomplete, (".yaml", ".yml"))]


def strategies(incomplete: str) -> list[str]:
    """Return the strategies that the last of a comma-separated list may become."""
    from bench.strategies.registry import STRATEGIES

    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [f"{before}{comma}{name}" for name in _beginning(STRATEGIES, last) if name not in taken]


def settings(incomplete: str) -> list[str]:
    """Return the keys of settings that begin so, each with its `=`."""
    return [f"{key}=" for key in _beginning(setting_keys(), incomplete)]


def devices(incomplete: str) -> list[str]:
    """Return the kinds of devices that begin so."""
    return _beginning(["auto", "cpu", "cuda", "cuda:0"], incomplete)


def setting_keys() -> list[str]:
    """Return the dotted keys of all settings of a study."""
    from bench.study.schema import Part, Study

    def below(part: type[Part], prefix: str) -> Iterator[str]:
        for name, field in part.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, Part):
                yield from below(inner, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}"

    return list(below(Study, ""))


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, suffixes: tuple[str, ...] = (".csv", ".yaml", ".yml")) -> list[str]:
    """Return the folders that a path may become, and the files with these suffixes."""
    folder, _, beginning = incomplete.rpartition("/")
    above = Path(f"{folder}/" if "/" in incomplete else ".").expanduser()
    try:
        inside = sorted(above.iterdir())
    except OSError:
        return []
    shown = [
        path
        for path in inside
        if path.name.startswith(beginning)
        and (not path.name.startswith(".") or beginning.startswith("."))
        and (path.is_dir() or path.suffix in suffixes)
    ]
    begun = f"{folder}/" if "/" in incomplete else ""
    return [f"{begun}{path.name}{'/' if path.is_dir() else ''}" for path in shown]
