"""Pieces of work on the threads of a processor: all of them, each alone, and nothing changed after."""

import threading
import time

import pytest
import torch

from bench.execution import each_on_a_thread
from bench.models.prefix import Prefix


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_piece_is_done_once_with_one_thread(three_threads):
    done = {}
    each_on_a_thread(
        lambda place, value: done.update({place: (value, torch.get_num_threads())}),
        [(place, place * place) for place in range(20)],
        "cpu",
    )
    assert done == {place: (place * place, 1) for place in range(20)}
    assert torch.get_num_threads() == 3


def test_a_failure_ends_the_work(three_threads):
    begun = []

    def fail(piece):
        begun.append(piece)
        time.sleep(0.01)
        raise ValueError(piece)

    with pytest.raises(ValueError, match="0"):
        each_on_a_thread(fail, [(piece,) for piece in range(1000)], "cpu")
    assert len(begun) < 1000
    assert torch.get_num_threads() == 3


def test_other_devices_and_single_pieces_are_left_to_this_thread(three_threads):
    for pieces, device in (([(1,), (2,)], "cuda"), ([(1,)], "cpu")):
        seen = []
        each_on_a_thread(lambda piece, seen=seen: seen.append((piece, threading.get_ident())), pieces, device)
        assert seen == [(piece, threading.get_ident()) for (piece,) in pieces]


def test_threads_in_one_prefix_get_what_is_theirs(three_threads):
    backbone = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 8)).eval()
    prefix = Prefix(backbone, "0", "1")
    images = torch.randn(200, 16, 4, generator=torch.Generator().manual_seed(0))
    found = {}
    with torch.inference_mode():
        expected = [prefix(batch)[1] for batch in images]

    @torch.inference_mode()
    def compute(place):
        found[place] = prefix(images[place])[1]

    each_on_a_thread(compute, [(place,) for place in range(200)], "cpu")
    assert all(torch.allclose(found[place], expected[place], atol=1e-6) for place in range(200))
