"""Commands as a person can copy them."""

from pathlib import Path

import pytest

from bench.system.command_line import as_typed, with_option


@pytest.mark.parametrize(
    ("command", "copied"),
    [
        ("bench run a", "bench run a --seeds 9"),
        ("bench run a --seeds 3 --jobs 2", "bench run a --jobs 2 --seeds 9"),
        ("bench run --seeds=3 a", "bench run a --seeds 9"),
        ("bench run '~/my photos'", "bench run ~/'my photos' --seeds 9"),
        ("bench run 'a; rm -r b'", "bench run 'a; rm -r b' --seeds 9"),
    ],
)
def test_an_option_is_set_anew(command, copied):
    assert with_option(command, "--seeds", "9") == copied


def test_the_home_folder_is_not_named():
    assert as_typed(["bench", "run", str(Path.home() / "my photos")]) == "bench run ~/'my photos'"
