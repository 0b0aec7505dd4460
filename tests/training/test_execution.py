"""Pieces of work on the threads of a processor: each alone, nothing changed after. Compiled steps."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from bench.core.errors import InputError
from bench.models.partial_forward import Prefix, replica
from bench.strategies.registry import STRATEGIES
from bench.study.schema import Training
from bench.training import compilation
from bench.training.compilation import compiled_if_wished
from bench.training.devices import each_on_a_thread
from bench.training.execution import Execution
from bench.training.inputs import batches
from bench.training.loop import train
from tests.test_contract import (  # noqa: F401 - fixtures
    SIDE,
    dataset,
    problem_for,
    random_weights,
)

CPU = Execution("cpu", "fp32")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_every_call_is_done_once_with_one_thread(three_threads):
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

    def fail(number):
        begun.append(number)
        time.sleep(0.01)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        each_on_a_thread(fail, [(number,) for number in range(1000)], "cpu")
    assert len(begun) < 1000
    assert torch.get_num_threads() == 3


def test_one_call_has_one_thread_too(three_threads):
    seen = []
    each_on_a_thread(lambda: seen.append(torch.get_num_threads()), [()], "cpu")
    assert seen == [1], "what a call gives must not depend on how many there are"


def test_other_devices_are_left_to_this_thread(three_threads):
    seen = []
    each_on_a_thread(lambda number: seen.append((number, threading.get_ident())), [(1,), (2,)], "cuda")
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


def small_model():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())


def found(training, model=small_model):
    return compiled_if_wished(CPU, training, model, 16, [32])


def test_nothing_is_compiled_unasked(monkeypatch):
    def never(*_):
        raise AssertionError("nothing is tried")

    monkeypatch.setattr(compilation, "time_step", never)
    assert found(Training()) == found(Training(compile="never")) == CPU


class Splitting(torch.nn.Conv2d):
    """A layer with what can't be compiled in one piece."""

    def forward(self, images):
        torch._dynamo.graph_break()
        return super().forward(images)


def test_what_cannot_be_compiled_is_said():
    def model():
        return torch.nn.Sequential(Splitting(3, 8, 3))

    with pytest.raises(InputError, match=r"training\.compile: the model can't be compiled here"):
        found(Training(compile="always"), model)


@pytest.mark.slow
def test_compiled_steps_give_what_others_give(dataset, random_weights):  # noqa: F811
    """For batches of both sizes; what is compiled serves later runs, and predictions go without."""
    training = Training(epochs=3, batch_size=5, compile="always")
    source = random_weights("timm/resnet10t")

    def problem(way):
        made = problem_for(STRATEGIES["full"], source, dataset)
        return replace(made, train=made.train[:11], training=training, execution=way)

    sizes = {len(batch) for batch in batches(problem(CPU).train, 5)}
    assert sizes == {3, 4}
    fast = compiled_if_wished(CPU, training, lambda: problem(CPU).model, SIDE, sizes)
    assert set(fast.compiled) == {3, 4}
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    eager, compiled = train(problem(CPU)).curve, train(problem(fast)).curve
    assert train(problem(fast)).curve == compiled
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    for slow_row, fast_row in zip(eager, compiled, strict=True):
        # Batch norm over three images makes rounding large: 0.8 % after nine steps on some processors.
        assert fast_row == pytest.approx(slow_row, rel=0.03)
