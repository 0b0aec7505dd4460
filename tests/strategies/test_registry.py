"""Strategies of other packages are found where they are installed; a mistake of theirs is one clear line."""

import dataclasses
import subprocess
import sys

import pytest

from bench.core.errors import InputError
from bench.strategies.base import Range
from bench.strategies.plan import Phase
from bench.strategies.registry import STRATEGIES, StrategyRegistry

CODE = """
from bench.strategies.base import Range, Strategy
from bench.strategies.plan import Phase

stem_only = Strategy(
    name="stem_only",
    summary="pretrained; the stem and the head are trained",
    start="pretrained",
    phases=lambda stages, _: (Phase(1, (1,) + (0,) * (stages - 1) + (1,)),),
    learning_rate=Range(1e-4, 1e-2, 1e-3, log=True),
    space={},
)
number = 7
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Lay a package with entry points where Python finds it, as pip would."""

    def lay(points, code=CODE, name="other"):
        (tmp_path / f"{name}_strategies.py").write_text(code)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [f"{point} = {target}" for point, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[bench.strategies]", *lines, ""]))

    list(STRATEGIES)  # it looks once in a process, and is not to see what only this test has
    monkeypatch.syspath_prepend(tmp_path)
    yield lay
    for name in [name for name in sys.modules if name.endswith("_strategies")]:
        del sys.modules[name]


def test_one_of_an_installed_package_is_there_beside_ours(install):
    install({"stem_only": "other_strategies:stem_only"})
    registry = StrategyRegistry()
    assert "stem_only" in registry
    assert "other_strategies" not in sys.modules, "it is imported only when it is asked for"
    assert registry.get_or_raise("stem_only").plan(3, {}).phases[0].multipliers == (1, 0, 0, 1)
    assert list(registry) == [*STRATEGIES, "stem_only"]
    assert [strategy.name for strategy in registry.values()] == list(registry)
    assert len(registry) == len(STRATEGIES) + 1
    with pytest.raises(InputError, match="did you mean 'stem_only'"):
        registry.get_or_raise("stem_onyl")


def test_another_process_finds_it_too(install, tmp_path):
    install({"stem_only": "other_strategies:stem_only"})
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from bench.strategies.registry import STRATEGIES\n"
        "print(STRATEGIES['stem_only'].fingerprint, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [StrategyRegistry()["stem_only"].fingerprint, "False"]


@pytest.mark.parametrize(
    ("points", "code", "message"),
    [
        (
            {"mine": "other_strategies:absent"},
            CODE,
            "strategy mine of other 1.2: can't be loaded .AttributeError",
        ),
        ({"mine": "other_strategies:x"}, "1 / 0", "can't be loaded .ZeroDivisionError: division by zero"),
        ({"mine": "nowhere:x"}, CODE, "can't be loaded .ModuleNotFoundError"),
        (
            {"mine": "other_strategies:number"},
            CODE,
            "is no Strategy but a int; mend that package or uninstall",
        ),
        ({"mine": "other_strategies:stem_only"}, CODE, "calls itself 'stem_only'"),
    ],
)
def test_one_that_is_broken_is_one_line_when_it_is_asked_for(install, points, code, message):
    install(points, code)
    registry = StrategyRegistry()
    assert registry["full"].name == "full", "ours are there all the same"
    with pytest.raises(InputError, match=message) as caught:
        registry.get_or_raise("mine", "strategies.0")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_taken_is_one_line(install):
    install({"full": "other_strategies:stem_only"})
    with pytest.raises(
        InputError, match=r"bench and other 1\.2 both have a strategy 'full'; uninstall other"
    ):
        StrategyRegistry().get_or_raise("full")


def test_a_name_that_two_packages_give_is_one_line(install):
    install({"stem_only": "other_strategies:stem_only"})
    install({"stem_only": "third_strategies:stem_only"}, name="third")
    with pytest.raises(InputError, match=r"other 1\.2 and third 1\.2 both have a strategy 'stem_only'"):
        StrategyRegistry().get_or_raise("stem_only")


def changed(strategy, name):
    """The strategy with another value of a field, that is one, or None where no other value is possible."""
    values = {
        "start": "he",
        "phases": lambda stages, _: (Phase(1, (0.5,) * stages + (1,)),),
        "learning_rate": Range(1e-5, 1.0, 1e-3),
        "space": {"more": Range(0, 1, 0.5)},
        "parameters": "bias",
        "l2_sp": Range(0.1, 1.0, 0.5),
        "readout": lambda _stages, _params: 1,
        "adapter": STRATEGIES["lora"].adapter,
    }
    return dataclasses.replace(strategy, **{name: values[name]})


def test_every_field_counts_in_the_fingerprint():
    """A field that is added to the record must be given here, too: it counts, or says that it does not."""
    probe = dataclasses.replace(STRATEGIES["feature_extractor"], learning_rate=Range(1e-4, 1e-2, 1e-3))
    for field in dataclasses.fields(probe):
        if field.name == "name":
            continue  # it is in the arm's key
        if not field.compare:
            assert field.name in {"summary", "requires"}
            continue
        if field.name == "adapter":
            other = dataclasses.replace(
                STRATEGIES["lora"], adapter=lambda *_: STRATEGIES["lora"].adapter(1, {"rank": 3})
            )
            assert other.fingerprint != STRATEGIES["lora"].fingerprint
        elif field.name == "readout":
            other = STRATEGIES["earlier_features"]
            deeper = dataclasses.replace(other, readout=lambda _stages, _params: 1)
            assert deeper.fingerprint != other.fingerprint
        else:
            assert changed(probe, field.name).fingerprint != probe.fingerprint, field.name


def test_words_do_not_count_in_the_fingerprint():
    full = STRATEGIES["full"]
    assert (
        dataclasses.replace(full, summary="other words", requires=("torch",)).fingerprint == full.fingerprint
    )


def test_fingerprints_are_of_one_strategy_each():
    fingerprints = [strategy.fingerprint for strategy in STRATEGIES.values()]
    assert len(set(fingerprints)) == len(fingerprints)


def test_what_is_not_installed_is_named():
    lacking = dataclasses.replace(STRATEGIES["lora"], requires=("surely_not_installed",))
    with pytest.raises(
        InputError, match=r"^strategies\.2: lora needs the package surely_not_installed; pip install"
    ):
        lacking.check_installed("strategies.2")
    STRATEGIES["full"].check_installed("strategies.0")


@pytest.mark.parametrize("stages", [2, 4, 5, 7])
def test_depth_reaches_every_stage(stages):
    depths = [step / 50 for step in range(51)]
    one = {STRATEGIES["surgical"].plan(stages, {"depth": d}).phases[0].multipliers.index(1) for d in depths}
    assert one == set(range(stages))
    read = {STRATEGIES["earlier_features"].plan(stages, {"depth": d}).readout for d in depths}
    assert read == set(range(1, stages)), "any stage but the last"
