"""What the server makes of an aggregate: a step of an optimiser, and an average of its nets.

Both read what nodes have released and nothing else, so they cost no privacy.
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
        The whole of it; or half a period of a cosine, from one in the first round towards zero
        after the last.
    round_index : int
        Number of the round, from 1.
    rounds : int
        How many there are.

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
    """Moves the parameters by the aggregate of a round, as an optimiser would by minus a gradient.

    The server takes one step a round, unless nothing was aggregated.
    """

    n_moments: ClassVar[int] = 0
    """How many vectors it carries from step to step; they begin at zero."""
    schedule: Schedule = "constant"
    """Whether the learning rate stays, or falls along half a cosine towards zero."""

    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step: a fresh tensor.

        Parameters
        ----------
        flat : Tensor, shape (n_parameters,)
            The parameters that nodes trained from.
        update : Tensor, shape (n_parameters,)
            Weighted mean of what they sent.
        moments : Tensor, shape (n_moments, n_parameters)
            What was carried here; changed in place.
        n_steps : int
            Number of this step, from 1.
        scale : float
            Share of the learning rate that this step uses, from :func:`scale_rate`.
        """
        ...


SERVER_OPTIMISERS: Registry[ServerOptimiser] = Registry("server optimiser")


@SERVER_OPTIMISERS.register("sgd")
class ServerSgd(ServerOptimiser):
    """Adds the aggregate, times a learning rate: with a rate of 1 this is federated averaging."""

    learning_rate: Rate = 1.0
    """Share of the aggregate that is added."""
    schedule: Schedule = "constant"
    """Whether the learning rate stays, or falls along half a cosine towards zero."""

    @override  # nothing is carried
    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step."""
        return flat.add(update, alpha=scale * self.learning_rate)


@SERVER_OPTIMISERS.register("momentum")
class ServerMomentum(ServerOptimiser):
    """Adds a running sum of aggregates, each round's discounted by ``momentum`` (FedAvgM).

    References
    ----------
    Hsu, Qi and Brown 2019, "Measuring the effects of non-identical data distribution for federated
    visual classification".
    """

    n_moments: ClassVar[int] = 1
    learning_rate: Rate = 1.0
    """Share of the running sum that is added."""
    momentum: Decay = 0.9
    """Share of the running sum that is left after a round."""
    schedule: Schedule = "constant"
    """Whether the learning rate stays, or falls along half a cosine towards zero."""

    @override  # the number of the step does not matter
    def step(
        self, flat: Tensor, update: Tensor, moments: Tensor, n_steps: int, scale: float
    ) -> Tensor:
        """Return the parameters after a step."""
        velocity = moments[0].mul_(self.momentum).add_(update)
        return flat.add(velocity, alpha=scale * self.learning_rate)


@SERVER_OPTIMISERS.register("adam")
class ServerAdam(ServerOptimiser):
    """Divides a running mean of aggregates by the root of their running mean square (FedAdam).

    Running means are corrected for having begun at zero, as Kingma and Ba do; Reddi et al. leave
    that out. Behind much noise all entries have nearly the same mean square.

    References
    ----------
    Reddi et al. 2021, "Adaptive federated optimization", algorithm 2; Kingma and Ba 2015.
    """

    n_moments: ClassVar[int] = 2
    learning_rate: Rate = 0.01
    """About how far an entry moves in a round, in units of parameters."""
    first_decay: Decay = 0.9
    """Share of the running mean that is left after a round (beta 1)."""
    second_decay: Decay = 0.99
    """Share of the running mean square that is left after a round (beta 2)."""
    adaptivity: Annotated[float, Field(gt=0, le=1e6)] = 1e-3
    """Added to the root (tau), in units of an aggregate: entries far below it move less."""
    schedule: Schedule = "constant"
    """Whether the learning rate stays, or falls along half a cosine towards zero."""

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
    """Averages the nets of several rounds: the average is evaluated, and nodes train the latest.

    Noise that is independent from round to round falls out of an average.
    """

    def weight(self, round_index: int, rounds: int) -> float:
        """Return the weight of the round's net in the average; what was before has the rest.

        Parameters
        ----------
        round_index : int
            Number of the round, from 1.
        rounds : int
            How many there are.
        """
        ...


AVERAGINGS: Registry[Averaging] = Registry("averaging")


@AVERAGINGS.register("none")
class NoAveraging(Averaging):
    """The latest net alone."""

    @override  # it is the same in all rounds
    def weight(self, round_index: int, rounds: int) -> float:
        """Return one."""
        return 1.0


@AVERAGINGS.register("tail")
class TailAveraging(Averaging):
    """The plain mean of the nets from some round on; until then the latest net alone.

    References
    ----------
    Polyak and Juditsky 1992; Rakhlin, Shamir and Sridharan 2012 for suffixes.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of all rounds, the last ones, whose nets are averaged."""

    def weight(self, round_index: int, rounds: int) -> float:
        """Return one over the number of nets that are averaged by then."""
        n_before = rounds - max(round(self.share * rounds), 1)
        return 1.0 / max(round_index - n_before, 1)


@AVERAGINGS.register("ema")
class ExponentialAveraging(Averaging):
    """The mean of all rounds' nets, a net of k rounds ago weighed by ``decay`` to the power of k.

    The net before training has no part in it.
    """

    decay: Decay = 0.9
    """Weight of the net of a round, relative to that of the next one."""

    @override  # it does not depend on how many rounds there are
    def weight(self, round_index: int, rounds: int) -> float:
        """Return the latest net's share in the sum of weights."""
        return float((1 - self.decay) / (1 - self.decay**round_index))
