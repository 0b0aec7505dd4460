"""How pictures of any shape and depth become squares of 8 bits: the same in training and in serving."""

from dataclasses import dataclass
from typing import Literal

Fit = Literal["crop", "pad", "stretch"]
BLACK, WHITE = 0, 65535  # of 16 bits


@dataclass(frozen=True)
class Framing:
    """What is done with a picture before it is resized.

    Args:
        fit: crop: its centre square is taken; pad: all of it is shown, on grey; stretch: all of it is shown,
            its sides made equal.
        levels: the values of 16-bit pixels that become 0 and 255.
        lost: the share of the area that cropping loses, mean over the data set.
    """

    fit: Fit = "crop"
    levels: tuple[int, int] = (BLACK, WHITE)
    lost: float = 0.0

    @property
    def in_words(self) -> str:
        """What happens to the pictures; empty where they are squares, to which nothing happens."""
        if not self.lost:
            return ""
        share = f"{100 * self.lost:.0f} % of their area"
        return {
            "crop": f"cropped to their centre squares, which leaves out {share}",
            "pad": f"shown whole, on grey; centre squares would leave out {share}",
            "stretch": f"stretched to squares; centre squares would leave out {share}",
        }[self.fit]


AS_IT_IS = Framing()
