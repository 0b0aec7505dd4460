"""The temperature that calibrates probabilities: one number by which all logits are divided.

Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", section 4.2: the one that
makes the labels of the validation images most likely. Where all of these are right there is no such
temperature, as the likelihood only grows when it falls. So its logarithm has a standard normal prior, which
counts next to nothing as soon as some are wrong.
"""

import math

import numpy as np
from scipy import optimize, special

RANGE = (math.log(1e-3), math.log(1e3))  # of the logarithm


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature for logits, shape (N, classes), of images with labels: int, shape (N,)."""
    own = logits.astype(np.float64)
    own -= own.max(1, keepdims=True)
    true = own[np.arange(len(labels)), labels]

    def cost(logarithm: float) -> float:
        """Return minus the log posterior, for each image."""
        sharpness = math.exp(-logarithm)
        lost = special.logsumexp(sharpness * own, axis=1) - sharpness * true
        return float(lost.mean()) + logarithm**2 / (2 * len(labels))

    found = optimize.minimize_scalar(cost, bounds=RANGE, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)
