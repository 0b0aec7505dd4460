"""Studies: one schema, overrides, budgets, and one clear line for every mistake."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.core.errors import InputError, nearest
from bench.study.allowance import DEFAULT_STEPS
from bench.study.loading import available, load
from bench.study.schema import Study

MINIMAL = {"question": "?", "source": {"model": "timm/resnet18"}, "target": {"data": "elpv"}}


@pytest.fixture
def write(tmp_path):
    def to_file(values, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
        return str(path)

    return to_file


def test_every_study_that_ships_is_valid():
    names = available()
    assert {"small_similar", "large_different", "hymenoptera", "reference/small_similar"} <= set(names)
    for name in names:
        study = load(name)
        assert study.question
        assert study.name == name.replace("/", "_")


def test_a_resolved_study_is_read_back_as_itself(write):
    study = load(write(MINIMAL))
    assert load(write(study.model_dump(mode="json"), "again.yaml")) == study


def test_overrides_win_over_file_and_budget(write):
    study = load(
        write(MINIMAL),
        ["training.epochs=7", "target.augmentation.views=null", "head.kind=concat_pool"],
        "smoke",
    )
    assert study.training.epochs == 7
    assert study.target.augmentation.views is None
    assert study.head.kind == "concat_pool"
    assert study.tuning.trials == 2


def test_steps_on_the_command_line_take_the_place_of_epochs_and_the_other_way_round(write):
    path = write({**MINIMAL, "training": {"epochs": 5}})
    by_steps, by_epochs = load(path, ["training.steps=90"]), load(path, ["training.epochs=2"], "full")
    assert (by_steps.training.steps, by_steps.training.epochs) == (90, None)
    assert (by_epochs.training.steps, by_epochs.training.epochs) == (None, 2)
    with pytest.raises(InputError, match="steps and epochs both say how long"):
        load(path, ["training.steps=90", "training.epochs=2"])


def test_budgets_change_trials_seeds_length_and_labels(write):
    path = write({**MINIMAL, "seeds": 3, "training": {"epochs": 5}})
    smoke, default, full = (load(path, budget=budget) for budget in ("smoke", "default", "full"))
    assert (smoke.seeds, default.seeds, full.seeds) == (2, 3, 10)
    assert (smoke.training.epochs, default.training.epochs, full.training.epochs) == (2, 5, 15)
    path = write({**MINIMAL, "training": {"steps": 100}}, "steps.yaml")
    smoke_by_steps, full_by_steps = (load(path, budget=budget).training for budget in ("smoke", "full"))
    assert (smoke_by_steps.steps, smoke_by_steps.epochs) == (None, 2)
    assert (full_by_steps.steps, full_by_steps.epochs) == (300, None)
    assert load(write(MINIMAL, "neither.yaml"), budget="full").training.steps == 3 * DEFAULT_STEPS
    assert smoke.target.cap == 48
    assert full.target.cap is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"targt": {}}, "unknown key 'targt'; did you mean 'target'?"),
        (
            {"target": {"data": "elpv", "image_sise": 64}},
            "unknown key 'target.image_sise'; did you mean 'target.image_size'?",
        ),
        ({"training": {"epochs": "many"}}, "training.epochs: must be a whole number (given: 'many')"),
        ({"training": {"epochs": 0}}, "training.epochs: must be 1 or more"),
        ({"training": {"optimizer": "adam"}}, "training.optimizer: must be 'adamw' or 'sgd'"),
        ({"training": {"schedule": 3}}, "training.schedule: must be 'plateau', "),
        ({"training": {"warmup": 1}}, "training.warmup: must be less than 1"),
        ({"training": 3}, "training: must be a mapping of keys to values"),
        ({"seeds": 1.5}, "seeds: must be a whole number"),
        ({"target": {"data": ""}}, "target.data: must not be empty"),
        ({"target": {"data": "a", "classes": ["one"]}}, "target.classes: must have 2 values or more"),
        ({"target": {"data": "a", "augmentation": {"crop_scale": [0.5]}}}, "target.augmentation.crop_scale"),
        (
            {"target": {"data": "a", "augmentation": {"crop_scale": [0, 1]}}},
            "target.augmentation.crop_scale.0",
        ),
        ({"training": {"epochs": 1, "steps": 9}}, "steps and epochs both say how long"),
        ({"source": {"model": "resnet18"}}, "source.model"),
        ({"source": {}}, "the key 'source.model' is missing"),
        ({"head": {"kind": "liner"}}, "head.kind"),
        ({"target": {"data": "elpv", "augmentation": {"crop_scale": [0.9, 0.1]}}}, "crop_scale"),
        ({"strategies": ["full", "full"]}, "named twice"),
        ({"strategies": []}, "strategies"),
        ({"head": {"dropout": float("nan")}}, "head.dropout"),
        (
            {"source": {"model": "timm/resnet18", "mean": [0, 0, 0], "std": [1, 0, 1]}},
            "source.std.1: must be more than 0 (given: '0')",
        ),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(write, change, says):
    path = write({**MINIMAL, **change})
    with pytest.raises(InputError) as raised:
        load(path)
    assert path in str(raised.value)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b", "not a mapping"),
        ("a: [1", "not valid YAML in line"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("", "not a mapping"),
        ("question: q\nseeds: !!bool x", "in line 2: 'x' is no bool"),
        ("seeds: !!int ''", "in line 1: '' is no int"),
        ("seeds: !!float ''", "in line 1: '' is no float"),
        ("seeds: !!timestamp x", "in line 1: 'x' is no timestamp"),
        ("seeds: 3\nquestion: q\nseeds: 4", "in line 3: 'seeds' is written twice, first in line 1"),
        ("target: {data: a}\ntuning:\n  seed: 1\n  'seed': 2", "in line 4: 'seed' is written twice"),
    ],
)
def test_a_file_that_is_no_study_is_refused(write, text, says):
    with pytest.raises(InputError, match=says):
        load(write(text))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.epochs", "is not KEY=VALUE"),
        ("training.epoch=3", "did you mean 'training.epochs'"),
        ("epochs=3", "did you mean 'training.epochs'"),
        ("epoch=3", "did you mean 'training.epochs'"),
        ("seeds.many=3", "has no keys of its own"),
        ("training.epochs=[1", "not valid YAML"),
        ("seeds=!!bool x", "the value of 'seeds' is not valid YAML"),
        ("training={epochs: 1, epochs: 2}", "the value of 'training' is not valid YAML"),
        ("scenario.size=small", "the key 'scenario.similarity' is missing"),
    ],
)
def test_a_wrong_override_is_refused(write, override, says):
    with pytest.raises(InputError, match=says):
        load(write(MINIMAL), [override])


def test_parts_that_are_not_there_can_be_set(write):
    changes = ["scenario.size=small", "scenario.similarity=different"]
    assert load(write(MINIMAL), changes).scenario.similarity == "different"


TAGS = st.sampled_from(["bool", "int", "float", "timestamp", "binary", "null", "set", "omap", "pairs", "map"])
SCALARS = st.text(st.sampled_from("0123456789-+_.:eETx "), max_size=24)


@given(TAGS, SCALARS)
def test_any_tagged_text_is_a_value_or_an_input_error(tmp_path_factory, tag, text):
    path = tmp_path_factory.getbasetemp() / "tagged.yaml"
    path.write_text(f"seeds: !!{tag} '{text}'\n")
    with pytest.raises(InputError):
        load(str(path))  # there is no question


def test_an_unknown_name_answers_with_the_nearest(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="did you mean 'small_similar'"):
        load("smal_similar")
    with pytest.raises(InputError, match="no study file"):
        load(str(tmp_path / "nothing.yaml"))


def test_a_single_name_is_never_left_out():
    names = [f"name{number:02}" for number in range(14)]
    assert nearest("x", names[:13]) == f"valid: {', '.join(names[:13])}"
    assert nearest("x", names) == f"valid: {', '.join(names[:12])} and 2 more"


@given(st.text(min_size=1, max_size=30))
def test_a_study_s_name_cannot_leave_its_folder(name):
    try:
        study = Study.model_validate({**MINIMAL, "name": name})
    except ValueError:
        return
    assert "/" not in study.name
    assert not study.name.startswith(".")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my study.yaml", "my_study"),
        ("Größe (2).yaml", "Größe_2_"),
        ("数据.yaml", "study_数据"),
        ("a.yaml", "a"),
    ],
)
def test_a_study_without_a_name_is_called_like_its_file(tmp_path, caplog, file, name):
    path = tmp_path / file
    path.write_text("question: q\nsource: {model: timm/resnet18}\ntarget: {data: x}\n")
    assert load(str(path)).name == name
    said = (
        []
        if file == "a.yaml"
        else [f"{path}: the study is called {name}; a key `name` in the file would say otherwise"]
    )
    assert caplog.messages == said
