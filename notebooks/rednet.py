"""RED-Net, for comparison: a convolutional autoencoder with skip connections (paper, section 5).

Encoder convolutions of 3x3 and stride 2 without padding halve a field of n points a side, n odd,
to (n - 1) / 2; transposed convolutions bring it back. All channels of a depth read all of the one
before. At every depth the encoder's features are added to what the decoder has there, so that a
decoder needs them all.

A network as deep as MrCAE has levels, with as many channels at each depth as MrCAE has filters at
the level, has the size that the authors report: `CHANNELS`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from xmrcae.core import losses, solvers
from xmrcae.core.matrices import Prolongation
from xmrcae.core.samples import Samples

if TYPE_CHECKING:
    from xmrcae.handover import LevelData

#: Channels, finest first, worked out from the sizes in the paper's figure 10: 303, 669 and 1622
#: parameters, and for the isotropic turbulence 1184, where 1178 was read off the curve. Those of
#: its MrCAE, 160, 240, 373 and 315, come from as many filters at the same levels; other channels
#: that have these sizes do not go with the stages of that MrCAE.
CHANNELS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "two_modes": (4, 2, 2),
        "drifting_mode": (4, 4, 4),
        "channel_flow": (4, 7, 7, 1),
        "isotropic_turbulence": (4, 7, 4, 1),
    }
)

#: Epochs over which a decrease is measured, and the share under which it counts as none.
WINDOW, MIN_DECREASE = 10, 1e-4
#: Epochs between looks at the validation loss, which cost a good part of an epoch each.
LOOK = 5
#: Samples that go through the network together: few enough to stay in the processor's cache.
BLOCK = 32


class Losses(NamedTuple):
    """The terms of (3.1) or (3.4), in scaled units squared."""

    mse: float
    max: float
    loss: float

    @classmethod
    def of(cls, errors: Tensor, samples: Samples, omega: float) -> Losses:
        """Return those of the time-mean squared errors of each pixel."""
        return cls(*losses.loss_terms(errors, samples, omega).tolist())


class REDNet(nn.Module):
    """Encoder, decoder and skip connections.

    Parameters
    ----------
    channels : sequence of int
        Of each depth, finest first.
    activation : {None, "relu"}
        Applied to the encoder's features. Without one the network is affine.
    extended : bool
        Let transposed convolutions read one replicated cell beyond each edge, as MrCAE's deepening
        does, so that the outermost ring gets what the inside gets. The authors' RED-Net does not.
    generator : torch.Generator
        Of the start values, uniform within the inverse root of the number of values that a filter
        reads.
    variables : int
        Number of variables of a field.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        activation: str | None = None,
        extended: bool = False,
        generator: torch.Generator,
        variables: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.channels, self.activation, self.extended = tuple(channels), activation, extended
        widths = (variables, *self.channels)

        def uniform(*shape: int, reads: int) -> nn.Parameter:
            values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
            return nn.Parameter((values / math.sqrt(9 * reads)).to(dtype))

        self.encoders, self.decoders = nn.ParameterList(), nn.ParameterList()
        self.encoder_biases, self.decoder_biases = nn.ParameterList(), nn.ParameterList()
        for fine, coarse in pairwise(widths):
            self.encoders.append(uniform(coarse, fine, 3, 3, reads=fine))
            self.encoder_biases.append(uniform(coarse, reads=fine))
            self.decoders.append(uniform(coarse, fine, 3, 3, reads=coarse))
            self.decoder_biases.append(uniform(fine, reads=coarse))

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(parameter.numel() for parameter in self.parameters())

    def encoding_size(self, shape: tuple[int, int]) -> int:
        """Numbers per snapshot of this shape that the decoder needs: the features of every depth.

        The authors count the same. The last layer alone reads no more than the sum at the first
        depth.
        """
        size = 0
        for depth, n in enumerate(self.channels, 1):
            size += n * ((shape[0] + 1 >> depth) - 1) * ((shape[1] + 1 >> depth) - 1)
        return size

    def encode(self, fields: Tensor, one: Tensor) -> list[Tensor]:
        """Features of every depth, finest first.

        Parameters
        ----------
        fields : Tensor, shape (sample, variable, y, x)
            Fields of 2^depth q - 1 points a side.
        one : Tensor, shape (sample,)
            What biases are multiplied with: 1 for a snapshot.
        """
        features = []
        for weight, bias in zip(self.encoders, self.encoder_biases, strict=True):
            fields = nn.functional.conv2d(fields, weight, stride=2) + _times(one, bias)
            fields = fields.relu() if self.activation == "relu" else fields
            features.append(fields)
        return features

    def decode(self, features: Sequence[Tensor], one: Tensor) -> Tensor:
        """Fields from the features of every depth."""
        fields = torch.zeros_like(features[-1])
        layers = list(zip(features, self.decoders, self.decoder_biases, strict=True))
        for skipped, weight, bias in reversed(layers):
            fields = fields + skipped
            if self.extended:
                fields = nn.functional.pad(fields, (1, 1, 1, 1), mode="replicate")
            cut = 2 * self.extended
            fields = nn.functional.conv_transpose2d(fields, weight, stride=2, padding=cut)
            fields = fields + _times(one, bias)
        return fields

    def forward(self, fields: Tensor, one: Tensor) -> Tensor:
        """What comes back of the fields."""
        return self.decode(self.encode(fields, one), one)


def _times(one: Tensor, bias: Tensor) -> Tensor:
    return one[:, None, None, None] * bias[:, None, None]


@dataclass(frozen=True)
class _Part:
    """The samples of a part of the data, as fields and as what losses take."""

    samples: Samples
    fields: Tensor
    one: Tensor

    @classmethod
    def of(cls, data: LevelData, part: slice) -> _Part:
        samples = Samples.of(data, torch.device("cpu"))
        fields = samples.pixels.T.reshape(data.samples.shape)[part]
        return cls(samples, fields.contiguous(), samples.constant[part])

    def errors(self, network: REDNet) -> Tensor:
        """Time-mean squared error of each pixel."""
        blocks = zip(self.fields.split(BLOCK), self.one.split(BLOCK), strict=True)
        squares = [(network(x, one) - x).square().sum(0).flatten() for x, one in blocks]
        return torch.stack(squares).sum(0) / torch.dot(self.one, self.one)


def train(
    channels: Sequence[int],
    training: LevelData,
    validation: LevelData,
    *,
    activation: str | None = None,
    extended: bool = False,
    omega: float = 0.5,
    snapshots: int | None = None,
    seconds: float = math.inf,
    max_epochs: float = math.inf,
    seed: int = 0,
) -> tuple[REDNet, list[dict[str, float]]]:
    """Minimise the loss (3.1) of one level from one random start after the other.

    The solver is that of MrCAE, all samples in one batch. After ten epochs that bring less than a
    ten-thousandth the power of its norm rises, and after the last power the next start begins:
    many a start with ReLU has dead channels.

    Parameters
    ----------
    channels : sequence of int
        Of each depth, finest first.
    training, validation : LevelData
        A compressed set serves without activation, and only then.
    activation, extended
        As for `REDNet`.
    omega : float
        Weight of the mean in the loss.
    snapshots : int, optional
        Train on no more than so many, evenly spaced; validation takes all.
    seconds, max_epochs : float
        When to stop; the one or the other is needed.
    seed : int
        Of the start values.

    Returns
    -------
    network : REDNet
        With the least validation loss, looked at every fifth epoch.
    history : list of dict
        One row a look: `epoch` (counted over all starts), `start`, `seconds`, and `train_loss` and
        `validation_loss` of the level.

    Raises
    ------
    ValueError
        If neither limit is given, or for a compressed set with `activation` or `snapshots`.
    """
    if math.isinf(seconds) and math.isinf(max_epochs):
        raise ValueError("seconds and max_epochs are both infinite: give one, or it never ends")
    if (activation or snapshots) and not (training.constant == 1).all():
        raise ValueError(
            f"activation={activation!r} or snapshots={snapshots!r} needs snapshots, and training "
            'is a compressed set: prepare it with activation="relu", or give neither'
        )
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    every = math.ceil(training.rank / (snapshots or training.rank))
    train_part = _Part.of(training, slice(None, training.rank, every))
    validation_part = _Part.of(validation, slice(None))
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"loss": math.inf}
    epoch = start = 0

    def over() -> bool:
        return epoch >= max_epochs or time.perf_counter() - started >= seconds

    while not history or not over():
        network = REDNet(
            channels,
            activation=activation,
            extended=extended,
            generator=generator,
            variables=len(training.counts),
        )
        for train_loss in _descend(network, train_part, omega):
            epoch += 1
            last = over()
            if epoch % LOOK == 0 or last:
                with torch.no_grad():
                    errors = validation_part.errors(network)
                    loss = Losses.of(errors, validation_part.samples, omega).loss
                if loss < best["loss"] or not history:
                    best = {"loss": loss, "network": deepcopy(network)}
                row = {"epoch": epoch, "start": start, "seconds": time.perf_counter() - started}
                history.append(row | {"train_loss": train_loss, "validation_loss": loss})
            if last:
                break
        start += 1
    return best["network"], history


def _descend(network: REDNet, part: _Part, omega: float) -> Iterator[float]:
    """Train from one start; the objective after each epoch."""

    def objective(point: Tensor, power: float | None) -> solvers.Evaluated:
        nn.utils.vector_to_parameters(point, network.parameters())
        network.zero_grad()
        errors = part.errors(network)
        known, samples = errors.detach(), part.samples
        assert power is not None
        largest, by_largest = losses.smooth_max(known, samples.counts, power)
        value = losses.combined(losses.mean_error(known, samples.weights), largest, omega)
        errors.backward(losses.combined(samples.weights, by_largest, omega))
        gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
        return solvers.Evaluated(float(value), gradient, known)

    point = nn.utils.parameters_to_vector(network.parameters()).detach()
    solver = solvers.LBFGS(point, objective, learning_rate=1.0, weight_decay=0.0)
    values: list[float] = []
    while True:
        values = [*values[-WINDOW:], solver.step().value]
        nn.utils.vector_to_parameters(solver.point, network.parameters())
        yield values[-1]
        if len(values) > WINDOW and values[0] - values[-1] <= MIN_DECREASE * values[0]:
            values = []
            if not solver.raise_power():
                return


def global_losses(network: REDNet, data: Sequence[LevelData], level: int, omega: float) -> Losses:
    """(3.4): of the level's reconstruction, prolonged level by level, against the finest data.

    Parameters
    ----------
    network : REDNet
        Trained on the level.
    data : sequence of LevelData
        One a level, coarsest first.
    level : int
        The level.
    omega : float
        Weight of the mean.
    """
    part, finest = (_Part.of(each, slice(None)) for each in (data[level], data[-1]))
    with torch.no_grad():
        field = network(part.fields, part.one).flatten(1).T.contiguous()
    for coarse, fine in pairwise(torch.as_tensor(each.has_data) for each in data[level:]):
        field = Prolongation(coarse, fine, field.dtype)(field)
    residual = field - finest.samples.pixels
    return Losses.of(residual.square().sum(1) / finest.samples.n_snapshots, finest.samples, omega)
