"""Server optimisers, which apply an aggregate, and averages of the rounds' nets.

Both use only what nodes have released, so they cost no privacy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, override

from pydantic import Field

from fcfn_abm.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Schedule = Literal["constant", "cosine"]
Rate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def scale_rate(schedule: Schedule, round_index: int, rounds: int) -> float:
    """Return the share of the learning rate that a round uses.

    Parameters
    ----------
    schedule : {"constant", "cosine"}
        Constant; or half a period of a cosine, from one in the first round to near zero in the
        last.
    round_index : int
        Number of the round, from 1.
    rounds : int
        Number of rounds.

    References
    ----------
    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.

    Examples
    --------
    >>> [scale_rate("cosine", t, 3) for t in (1, 2, 3)]
    [1.0, 0.75, 0.25]
    """
    if schedule == "constant":
        return 1.0
    return round((1 + math.cos(math.pi * (round_index - 1) / rounds)) / 2, 15)


class ServerOptimiser(Protocol):
    """Applies the aggregate of a round to the parameters, as an optimiser applies minus a gradient.

    The server takes one step per round, unless nothing was aggregated.
    """

    n_moments: ClassVar[int] = 0
    """Number of vectors kept between steps, initially zero."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls along half a cosine towards zero."""

    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step, as a new tensor.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The parameters that nodes trained from.
        update : Tensor, shape (n_parameters,)
            Weighted mean of their uploads.
        moments : Tensor, shape (n_moments, n_parameters)
            Vectors kept between steps; changed in place.
        n_steps : int
            Number of this step, from 1.
        scale : float
            Share of the learning rate in this step, from :func:`scale_rate`.
        """
        ...


SERVER_OPTIMISERS: Registry[ServerOptimiser] = Registry("server optimiser")


@SERVER_OPTIMISERS.register("sgd")
class ServerSgd(ServerOptimiser):
    """Adds the aggregate, times a learning rate: with a rate of 1 this is federated averaging."""

    learning_rate: Rate = 1.0
    """Learning rate: share of the aggregate that is added."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls along half a cosine towards zero."""

    @override  # no vectors are kept
    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step."""
        return flat.add(update, alpha=scale * self.learning_rate)


@SERVER_OPTIMISERS.register("momentum")
class ServerMomentum(ServerOptimiser):
    """Adds a running sum of aggregates, discounted by ``momentum`` per round (FedAvgM).

    References
    ----------
    Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data distribution for federated
    visual classification".
    """

    n_moments: ClassVar[int] = 1
    learning_rate: Rate = 1.0
    """Learning rate: share of the running sum that is added."""
    momentum: Decay = 0.9
    """Share of the running sum kept after a round."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls along half a cosine towards zero."""

    @override  # the step number is not used
    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step."""
        velocity = moments[0].mul_(self.momentum).add_(update)
        return flat.add(velocity, alpha=scale * self.learning_rate)


@SERVER_OPTIMISERS.register("adam")
class ServerAdam(ServerOptimiser):
    """Divides a running mean of aggregates by the root of their running mean square (FedAdam).

    Running means are corrected for their initial zero, as in Kingma and Ba; Reddi et al. omit this.
    Under much noise all entries have nearly the same mean square.

    References
    ----------
    Reddi et al. 2021, "Adaptive federated optimization", algorithm 2; Kingma and Ba 2015.
    """

    n_moments: ClassVar[int] = 2
    learning_rate: Rate = 0.01
    """Learning rate: approximate change of an entry per round, in units of parameters."""
    first_decay: Decay = 0.9
    """Share of the running mean kept after a round (beta 1)."""
    second_decay: Decay = 0.99
    """Share of the running mean square kept after a round (beta 2)."""
    adaptivity: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """Added to the root (tau), in units of an aggregate; much smaller entries move less."""
    schedule: Schedule = "constant"
    """Whether the learning rate is constant, or falls along half a cosine towards zero."""

    @override
    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step."""
        first = moments[0].lerp_(update, 1 - self.first_decay)
        second = moments[1].mul_(self.second_decay)
        second.addcmul_(update, update, value=1 - self.second_decay)
        root = (second / (1 - self.second_decay**n_steps)).sqrt_().add_(self.adaptivity)
        rate = scale * self.learning_rate / (1 - self.first_decay**n_steps)
        return flat.addcdiv(first, root, value=rate)


class Averaging(Protocol):
    """Averages the nets of several rounds: the average is evaluated; nodes train the latest net.

    Independent noise of the rounds averages out.
    """

    def weight(self, round_index: int, rounds: int) -> float:
        """Return the weight of the round's net in the average; the previous average has the rest.

        Parameters
        ----------
        round_index : int
            Number of the round, from 1.
        rounds : int
            Number of rounds.
        """
        ...


AVERAGINGS: Registry[Averaging] = Registry("averaging")


@AVERAGINGS.register("none")
class NoAveraging(Averaging):
    """The latest net."""

    @override  # the same in all rounds
    def weight(self, round_index: int, rounds: int) -> float:
        """Return one."""
        return 1.0


@AVERAGINGS.register("tail")
class TailAveraging(Averaging):
    """The mean of the nets from a certain round on; before it, the latest net.

    References
    ----------
    Polyak and Juditsky 1992; Rakhlin, Shamir and Sridharan 2012 for suffixes.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the rounds, at the end, whose nets are averaged."""

    def weight(self, round_index: int, rounds: int) -> float:
        """Return 1 / the number of nets averaged so far."""
        n_before = rounds - max(round(self.share * rounds), 1)
        return 1.0 / max(round_index - n_before, 1)


@AVERAGINGS.register("ema")
class ExponentialAveraging(Averaging):
    """The mean of all rounds' nets, with weight ``decay**k`` for the net of k rounds ago.

    The net before training is excluded.
    """

    decay: Decay = 0.9
    """Weight of the net of a round, relative to that of the next one."""

    @override  # independent of the number of rounds
    def weight(self, round_index: int, rounds: int) -> float:
        """Return the latest net's share in the sum of weights."""
        return float((1 - self.decay) / (1 - self.decay**round_index))
