"""Colours of the classes of a mask."""

import numpy as np

from bench.data.dataset import NO_LABEL

# Kelly 1965, "Twenty-two colors of maximum contrast", after white: told apart side by side.
_KELLY = (
    "222222 f3c300 875692 f38400 a1caf1 be0032 c2b280 848482 008856 e68fac 0067a5 f99379 604e97 f6a600 "
    "b3446c dcd300 882d17 8db600 654522 e25822 2b3d26"
)
COLOURS = np.array([[int(code[i : i + 2], 16) for i in (0, 2, 4)] for code in _KELLY.split()], dtype=np.uint8)
WHITE = np.array([255, 255, 255], dtype=np.uint8)  # no label


def colours(classes: int) -> np.ndarray:
    """Return a colour for each class: uint8, shape (classes, 3); after 21 they come again, darker."""
    turns = np.arange(classes) // len(COLOURS)
    chosen = COLOURS[np.arange(classes) % len(COLOURS)] * (0.7**turns)[:, None]
    return np.asarray(chosen.round(), dtype=np.uint8)


def paint(masks: np.ndarray) -> np.ndarray:
    """Return masks in colours: classes (...) to uint8 (..., 3); pixels without label are white."""
    table = np.concatenate([colours(NO_LABEL), WHITE[None]])
    return np.asarray(table[masks])


def overlay(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return images, uint8 (..., 3), with the colours of their masks laid over them, half transparent."""
    mixed = images.astype(np.uint16) + paint(masks)
    return np.asarray(mixed // 2, dtype=np.uint8)
