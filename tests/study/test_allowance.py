"""How long a run may train: in steps the same for every number of labels, in epochs not."""

from hypothesis import given
from hypothesis import strategies as st

from bench.study.allowance import batches_per_epoch, evaluation_steps
from bench.study.schema import Training


@given(st.integers(1, 2000), st.integers(1, 40), st.integers(2, 5000))
def test_steps_are_the_same_for_every_number_of_labels(steps, evaluations, images):
    training = Training(steps=steps, evaluations=evaluations)
    found = evaluation_steps(training, images)
    assert found == evaluation_steps(training, 100)
    assert found[-1] == steps
    assert len(found) == len(set(found)) == min(steps, evaluations)
    assert list(found) == sorted(found)


def test_epochs_are_evaluated_one_by_one():
    assert evaluation_steps(Training(epochs=3, batch_size=32), 100) == (4, 8, 12)
    assert evaluation_steps(Training(epochs=1, batch_size=32), 2000) == (63,)


def test_no_batch_is_a_single_image():
    assert batches_per_epoch(3, 2) == 1
    assert batches_per_epoch(33, 32) == 2
