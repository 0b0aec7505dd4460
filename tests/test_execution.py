"""Pieces of work on the threads of a processor: all of them, each alone, and nothing changed after."""

import threading
import time

import pytest
import torch

from bench.execution import each_on_a_thread
from bench.models.prefix import Prefix, replica


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


def test_one_piece_has_one_thread_too(three_threads):
    seen = []
    each_on_a_thread(lambda: seen.append(torch.get_num_threads()), [()], "cpu")
    assert seen == [1], "what a piece gives must not depend on how many there are"


def test_other_devices_are_left_to_this_thread(three_threads):
    seen = []
    each_on_a_thread(lambda piece: seen.append((piece, threading.get_ident())), [(1,), (2,)], "cuda")
    assert seen == [(1, threading.get_ident()), (2, threading.get_ident())]


MEETING = threading.Barrier(2)


class Meeting(torch.nn.Linear):
    """A layer that two threads are in at once, or never leave."""

    def forward(self, inputs):
        MEETING.wait(60)
        return super().forward(inputs)


def test_two_threads_in_replicas_of_one_prefix_get_what_is_theirs():
    backbone = torch.nn.Sequential(torch.nn.Linear(4, 4), Meeting(4, 64), torch.nn.Tanh()).eval()
    prefix = Prefix(backbone, "0", "1")
    images = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(0))
    found = {}

    @torch.inference_mode()
    def compute(place, own):
        found[place] = own(images[place])

    threads = [threading.Thread(target=compute, args=(place, replica(prefix))) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for place in range(2):
        first = torch.nn.functional.linear(images[place], backbone[0].weight, backbone[0].bias)
        second = torch.nn.functional.linear(first, backbone[1].weight, backbone[1].bias)
        assert torch.allclose(found[place][0], first, atol=1e-6)
        assert torch.allclose(found[place][1], second, atol=1e-6)


def test_a_replica_has_the_tensors_themselves_and_hooks_of_its_own():
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    copied = replica(module)
    originals = [*module.parameters(), *module.buffers()]
    assert all(a is b for a, b in zip(originals, [*copied.parameters(), *copied.buffers()], strict=True))
    copied[0].register_forward_hook(lambda *_: None)
    assert not module[0]._forward_hooks
