"""The temperature is the one of the maximum likelihood, and there is one where all is right."""

import numpy as np
import pytest
import torch
from scipy import special
from torch.nn import functional

from bench.training.calibration import fit_temperature


def drawn(temperature, images=4000, classes=5, seed=0):
    """Logits, and labels that are as likely as the logits divided by a temperature say."""
    draw = np.random.default_rng(seed)
    logits = 3 * draw.normal(size=(images, classes))
    chances = special.softmax(logits / temperature, axis=1)
    return logits, np.array([draw.choice(classes, p=own) for own in chances])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_labels_were_drawn_with(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.08)


def test_it_minimises_the_cross_entropy_of_torch():
    logits, labels = drawn(2.5)
    found = fit_temperature(logits.astype(np.float32), labels)
    logarithm = torch.tensor(np.log(found), requires_grad=True)
    loss = functional.cross_entropy(torch.from_numpy(logits) / logarithm.exp(), torch.from_numpy(labels))
    loss.backward()
    assert logarithm.grad.item() == pytest.approx(-np.log(found) / len(labels), abs=1e-6), "but for the prior"


def test_any_shift_of_an_image_s_logits_is_passed_over():
    logits, labels = drawn(1.5, images=200)
    shifts = np.linspace(-500, 500, 200)[:, None]
    assert fit_temperature(logits + shifts, labels) == pytest.approx(fit_temperature(logits, labels))


def test_where_all_is_right_it_is_lower_the_more_images_there_are_but_not_without_end():
    def of(images):
        return fit_temperature(np.tile([[2.0, 0.0]], (images, 1)), np.zeros(images, int))

    assert 0.1 < of(1000) < of(10) < 1


def test_where_nothing_is_known_it_is_one():
    assert fit_temperature(np.zeros((20, 3)), np.arange(20) % 3) == pytest.approx(1, abs=1e-4)
