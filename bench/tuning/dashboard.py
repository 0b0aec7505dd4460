"""Optuna's dashboard on tunings that are stored: a view of studies in memory, whose changes go with it."""

import importlib.util
import logging
import socket
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, create_trial

from bench.core.errors import InputError
from bench.core.runs import Status
from bench.strategies.base import Strategy
from bench.study.metrics import Metric
from bench.system.ports import address, check_port
from bench.system.signals import sigterm_interrupts
from bench.tuning.trials import FinishedTrial
from bench.tuning.tuner import DIRECTIONS, STATES, search_space

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuning:
    """The trials of an arm and seed, as far as they are.

    Args:
        name: what people see.
        strategy: the arm's: its search space.
        metric: what is tuned for, on val.
        trials: by number.
    """

    name: str
    strategy: Strategy
    metric: Metric
    trials: Sequence[FinishedTrial]


def check_installed() -> None:
    """Raise InputError unless the dashboard is installed: an optional extra."""
    if importlib.util.find_spec("optuna_dashboard") is None:
        remedy = "pip install 'transfer-bench[dashboard]'"
        raise InputError("Optuna's dashboard is not installed", "--tuning", remedy)


def rebuild(tunings: Iterable[Tuning]) -> BaseStorage:
    """Return a storage in memory with an Optuna study for each tuning.

    One with a trial outside of its strategy's search space, which may have changed, is left out and named.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = InMemoryStorage()
    for tuning in tunings:
        try:
            trials = [_frozen(trial, tuning.strategy) for trial in tuning.trials]
        except (KeyError, ValueError):
            log.warning("%s is left out: its search space has changed since", tuning.name)
            continue
        direction = DIRECTIONS[tuning.metric.direction]
        study = optuna.create_study(storage=storage, study_name=tuning.name, direction=direction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([f"val {tuning.metric.label}"])
        study.add_trials(trials)
    return storage


def _frozen(trial: FinishedTrial, strategy: Strategy) -> FrozenTrial:
    """Return a trial as Optuna has it; a pruned one has the value that it was pruned at."""
    space = search_space(strategy)
    pruned_at = trial.reports[-1][1] if trial.status is Status.PRUNED and trial.reports else None
    return create_trial(
        state=STATES[trial.status],
        value=pruned_at if trial.score is None else trial.score,
        params=dict(trial.params),
        distributions={name: space[name] for name in trial.params},
        intermediate_values=dict(trial.reports),
        user_attrs={"trial": trial.number + 1},  # Optuna numbers those that are finished
    )


def serve(storage: BaseStorage, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the dashboard until Ctrl-C or SIGTERM; say where it is as soon as it answers.

    Raises:
        InputError: if it is not installed, or the port can't be used.
    """
    check_installed()
    check_port(host, port)
    from optuna_dashboard import wsgi

    kind = _ServerOn6 if ":" in host else _Server
    server = make_server(host, port, wsgi(storage), kind, _Quiet)
    with suppress(KeyboardInterrupt), sigterm_interrupts(), server:
        on_ready(f"Optuna's dashboard is at {address(host, port)} (Ctrl-C stops it)")
        server.serve_forever()


class _Server(ThreadingMixIn, WSGIServer):
    """Answers several requests at a time."""

    daemon_threads = True


class _ServerOn6(_Server):
    """Listens on an address of IPv6."""

    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""
