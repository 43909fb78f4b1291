"""A market that is played in the window, with its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from fcfn_abm import build
from fcfn_abm.abm.columns import NEVER
from fcfn_abm.abm.state import RoundState
from fcfn_abm.errors import FcfnError
from fcfn_abm.process.workers import count_cores
from fcfn_abm.records import sampled_rows
from fcfn_abm.runs.facts import reference_facts
from fcfn_abm.scenario import Scenario
from fcfn_abm.viz.frame import Floats, Frame, Path, Training

if TYPE_CHECKING:
    from fcfn_abm.training import FederatedTrainer, TrainingRound

_KEPT_WHOLE = 2000  # up to so many nodes the path of each is kept
_KEPT = 256  # of larger markets, that of so many
_MEASURES = [field.name for field in fields(RoundState)]


class LiveMarket:
    """Plays a scenario's market round by round, and then trains with what it bought.

    Parameters
    ----------
    scenario : Scenario
        Complete and checked.
    """

    live = True

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.market = build.market(scenario)
        rho = self.market.columns.rho
        self._look_at_costs()
        self._kept = (
            np.arange(rho.size)
            if rho.size <= _KEPT_WHOLE
            else sampled_rows(rho, _KEPT, self.market.outcome.epsilon > 0)
        )
        self._reports: list[Floats] = [self._report()]
        self._watched: dict[int, tuple[list[int], list[float]]] = {}
        self._training: _SteppedTraining | None = None
        self.training_problem = ""

    @property
    def moment(self) -> int:
        """Rounds that were played, and rounds of training after them."""
        trained = len(self._results) - 1 if self._trains_after and self._results else 0
        return self.market.round_index + trained

    @property
    def moments(self) -> int | None:
        """Nobody knows when a market comes to rest."""
        return None

    @property
    def over(self) -> bool:
        """Whether the market has its verdict, and the training its last round."""
        return not self.market.running and not self._to_train

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """Kind, rounds and reason of the verdict."""
        return asdict(self.market.verdict) if self.market.verdict else None

    @property
    def _trains_after(self) -> bool:
        training = self.scenario.training
        return training is not None and training.schedule == "at-equilibrium"

    @property
    def _to_train(self) -> bool:
        if not self.scenario.trains or self.training_problem:
            return False
        if self._training is not None:
            return not self._training.over
        return not self._trains_after or bool((self.market.columns.epsilon > 0).any())

    @property
    def _results(self) -> list[TrainingRound]:
        return self._training.results if self._training else []

    def step(self) -> None:
        """Play a round, or train one; with the schedule "every-round" both."""
        if self._to_train and not (self._trains_after and self.market.running):
            self._train()
        elif self.market.running:
            self._play()

    def _look_at_costs(self) -> None:
        """Work out what follows from who is there, and from what privacy costs them."""
        self.form = reference_facts(self.market.outcome, self.market.primitives.rho)
        self._by_cost = np.argsort(self.market.columns.rho, kind="stable")

    def _play(self) -> None:
        self.market.step()
        if self.scenario.population.churn is not None:
            self._look_at_costs()
        self._reports.append(self._report())
        for node, (rounds, epsilon) in self._watched.items():
            rounds.append(self.market.round_index)
            epsilon.append(self.market.columns.epsilon.item(node))

    def _train(self) -> None:
        from fcfn_abm.runs.train import prepare

        try:
            if self._training is None:
                trainer = prepare(self.scenario, count_cores())
                self._training = _SteppedTraining(
                    trainer, self._bought, build.misreport(self.scenario)
                )
                self._training.step()  # how the net does before it is trained
            self._training.step()
        except FcfnError as error:
            self.training_problem = str(error)

    def _bought(self, _: int) -> Floats:
        """Return what the nodes train with in a round, playing a round first where that is due."""
        if not self._trains_after and self.market.running:
            self._play()
        return self.market.columns.epsilon.copy()

    def _report(self) -> Floats:
        return np.asarray(self.market.columns.epsilon[self._kept])

    def frame(self) -> Frame:
        """Return the market as it stands."""
        columns, data = self.market.columns, self.market.datacollector.model_vars
        return Frame(
            scenario=self.scenario,
            n_nodes=len(columns),
            round=self.market.round_index,
            nodes=np.arange(len(columns)),
            rho=columns.rho,
            epsilon=columns.epsilon,
            payment=columns.payment,
            utility=columns.utility,
            exited=columns.exited,
            history={name: data[name] for name in _MEASURES},
            form=self.form,
            priced=None if self.form["threshold"] else self.market.outcome.epsilon,
            by_cost=self._by_cost,
            training=self._trained(),
            note=self.training_problem,
        )

    def _trained(self) -> Training | None:
        settings = self.scenario.training
        if settings is None or not settings.enabled:
            return None
        results = self._results
        curve = ([r.round for r in results], [r.accuracy for r in results])
        data = self._training.trainer.data.label if self._training else settings.data.kind
        return Training(data, {self.scenario.mechanism.kind: curve}, settings.rounds)

    def path(self, node: int) -> Path:
        """Return what a node reported; in large markets, since it was first asked for."""
        place = np.searchsorted(self._kept, node)
        if place < self._kept.size and self._kept[place] == node:
            return Path(range(len(self._reports)), [float(r[place]) for r in self._reports])
        start = self.market.round_index, self.market.columns.epsilon.item(node)
        rounds, epsilon = self._watched.setdefault(node, ([start[0]], [start[1]]))
        return Path(rounds, epsilon)

    def left(self, node: int) -> int | None:
        """Return the round at whose end a node left."""
        round_index = self.market.columns.exit_round.item(node)
        return None if round_index == NEVER else round_index

    def close(self) -> None:
        """End the training's thread."""
        if self._training:
            self._training.close()


class _Closed(BaseException):
    """Ends a training that nobody watches any more."""


class _SteppedTraining:
    """Runs a trainer in a thread of its own, which waits for a nod before each round."""

    def __init__(
        self, trainer: FederatedTrainer, reports: Callable[[int], Floats], misreport: Floats
    ) -> None:
        self.trainer = trainer
        self.results: list[TrainingRound] = []
        self.over = False
        self._nod, self._news = Semaphore(0), SimpleQueue[Any]()
        self._closed = False

        def work() -> None:
            outcome: Any = None
            try:
                self._wait()
                trainer.train(reports, misreport=misreport, on_round=self._told)
            except _Closed:
                return
            except Exception as error:  # told to whoever steps
                outcome = error
            self._news.put(outcome)

        Thread(target=work, name="training", daemon=True).start()

    def step(self) -> None:
        """Train a round, and return when it is done."""
        self._nod.release()
        news = self._news.get()
        if isinstance(news, Exception):
            self.over = True
            raise news
        self.results.append(news)
        self.over = news.round == self.trainer.plan.rounds

    def close(self) -> None:
        """Let the thread end."""
        self._closed = True
        self._nod.release()

    def _told(self, result: TrainingRound) -> None:
        self._news.put(result)
        self._wait()

    def _wait(self) -> None:
        self._nod.acquire()
        if self._closed:
            raise _Closed
