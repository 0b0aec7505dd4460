"""Where images come from: each module makes sources, and those with names of their own register."""

from bench.data.sources import digit_scenes, packaged, photographs, torchvision  # noqa: F401 - they register their sources
