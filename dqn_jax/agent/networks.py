"""Torsos and heads. A network is a flax Linen module used only through its pure `init` and `apply`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dqn_jax.agent.algorithm import Head, Prediction, Streams
from dqn_jax.agent.convolutions import Conv, max_pool, same_padding
from dqn_jax.agent.dense import Dense, relu
from dqn_jax.agent.noisy import Noise, NoisyDense
from dqn_jax.agent.normalisation import LayerNorm
from dqn_jax.config import ConfigError, NetworkSettings
from dqn_jax.types import DType, EnvSpec, Key, PyTree

Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
}

INITIALIZERS: dict[str, Callable[..., jax.Array]] = {
    "lecun_normal": nn.initializers.lecun_normal(),
    "glorot_uniform": nn.initializers.glorot_uniform(),
    "he_normal": nn.initializers.he_normal(),
}

CONVOLUTIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "minatar": ((16, 3, 1),),
    "dqn2013": ((16, 8, 4), (32, 4, 2)),
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
}
"""Torsos that are convolutions one after another: features, size and stride of each."""

IMPALA_STAGES = (16, 32, 32)
"""Features of the stages of the residual torso."""

HADAMAX_BLOCKS = ((32, 8, 4, 4), (64, 4, 2, 2), (64, 3, 3, 1))
"""Blocks of the Hadamax torso: features, size of the convolutions, and size and stride of the pool behind them."""

PIXEL_TORSOS = ("dqn2013", "nature", "impala", "hadamax")
"""Torsos for camera images: bytes are scaled to 0..1. MinAtar's planes are 0 or 1 already."""


def smallest_image(torso: str) -> int:
    """The least height and width of an image from which all of the torso's convolutions give something."""
    least = 1
    for _, size, stride in reversed(CONVOLUTIONS.get(torso, ())):
        least = (least - 1) * stride + size
    return least


def choose_torso(obs_shape: tuple[int, ...], obs_dtype: DType) -> str:
    """What 'auto' stands for: nature for images of bytes large enough, minatar for others, else mlp.

    Images are `[H, W, C]`, or `[H, W, C, frame_stack]`.
    """
    if len(obs_shape) not in (3, 4):
        return "mlp"
    pixels = jnp.dtype(obs_dtype) == jnp.uint8 and min(obs_shape[:2]) >= smallest_image("nature")
    return "nature" if pixels else "minatar"


class ImpalaStage(nn.Module):
    """Convolution, max pool and two residual blocks: `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), features]`."""

    features: int
    activate: Activation  # with the normalisation before it, if there is any
    dtype: DType = jnp.float32  # computed in; weights are float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(Conv, self.features, size=3, padding=(1, 1), dtype=self.dtype)
        x = max_pool(conv()(x))
        for _ in range(2):
            block = conv()(self.activate(x))
            x = x + conv()(self.activate(block))
        return x


class HadamaxBlock(nn.Module):
    """`max_pool(gelu(norm(conv(x))) * gelu(norm(conv(x))))`, two convolutions of the same input.

    `[B, H, W, C]` to `[B, ceil(H / s), ceil(W / s), features]` with `s` the stride of the pool: all padding is 'SAME'.
    Normalisation and GELU (by tanh) are parts of the block, whatever the layers behind it have.

    Reference: Kooi et al. 2025 (arXiv 2505.15345), with the first weights of the authors' code.
    """

    features: int
    size: int
    pool_size: int
    pool_stride: int
    dtype: DType = jnp.float32  # computed in; weights are float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def branch() -> jax.Array:
            init = nn.initializers.xavier_normal()
            y = Conv(self.features, self.size, 1, same_padding(self.size), self.dtype, init)(x)
            return nn.gelu(LayerNorm(dtype=self.dtype)(y))

        return max_pool(branch() * branch(), self.pool_size, self.pool_stride)


def q_head(streams: Streams, features: jax.Array, key: Key, support: PyTree) -> Prediction:
    """One Q-value for each action: `[B, F]` to `q_values` `[B, A]`."""
    del key, support
    return Prediction(streams(features))


class Network(nn.Module):
    """Observations to predictions: `[B, *obs_shape]` to leaves `[B, ...]`, float32.

    torso "mlp" flattens the observation; the others are convolutions of `[H, W, C]` observations, or of
    `[H, W, C, frame_stack]`, all frames' channels taken together: "minatar" of Young & Tian 2019 (arXiv 1903.03176),
    "dqn2013" of Mnih et al. 2013 (arXiv 1312.5602), "nature" of Mnih et al. 2015 (Nature 518:529), "impala" the
    residual one of Espeholt et al. 2018 (arXiv 1802.01561, figure 3, without the LSTM), "hadamax" the products of
    Kooi et al. 2025 (arXiv 2505.15345; see `HadamaxBlock`). `hidden` are the dense layers behind any of them.
    `dueling` splits them into a value and an advantage stream, each with a last hidden layer of its
    own: Wang et al. 2016 (arXiv 1511.06581), equation 9. `weight_init` is that of the dense layers. `noisy` makes all
    dense layers noisy ones (see `noisy`), each with a noise of its own in every call.
    `layer_norm` normalises what each layer gives before its activation, over the features of each place: Ba et al.
    2016 (arXiv 1607.06450), used as in Gallici et al. 2024 (arXiv 2407.04811). `compute_dtype` is what all layers
    compute in; weights are float32. `head` makes of it what the algorithm predicts.
    """

    num_actions: int
    torso: str = "mlp"
    hidden: tuple[int, ...] = (120, 84)
    activation: str = "relu"
    layer_norm: bool = False
    dueling: bool = False
    noisy: bool = False
    weight_init: str = "lecun_normal"
    compute_dtype: str = "float32"
    head: Head = q_head

    @nn.compact
    def __call__(self, obs: jax.Array, key: Key, support: PyTree = (), noise: bool = True) -> Prediction:
        """`[B, *obs_shape]` to leaves `[B, ...]`; `support` is for the head, `key` for it and for noisy layers.

        Without `noise` noisy layers take their mean weights.
        """
        nonlinear = ACTIVATIONS[self.activation]
        dtype = jnp.dtype(self.compute_dtype)
        kernel_init = INITIALIZERS[self.weight_init]
        if self.noisy:
            key, noise_key = jax.random.split(key)
        drawn = Noise()

        def activate(x: jax.Array) -> jax.Array:
            return nonlinear(LayerNorm(dtype=dtype)(x) if self.layer_norm else x)

        def dense(width: int, x: jax.Array) -> jax.Array:
            if not self.noisy:
                return Dense(width, kernel_init=kernel_init, dtype=dtype)(x)
            return NoisyDense(width, kernel_init, dtype)(x, drawn.take(x.shape[-1], width))

        x = obs.astype(jnp.float32)
        if self.torso in PIXEL_TORSOS and obs.dtype == jnp.uint8:
            x = x / 255.0
        x = x.astype(dtype)
        if self.torso != "mlp":
            x = x.reshape(*x.shape[:3], -1)
        for features, size, stride in CONVOLUTIONS.get(self.torso, ()):
            x = activate(Conv(features, size, stride, dtype=dtype)(x))
        if self.torso == "impala":
            for features in IMPALA_STAGES:
                x = ImpalaStage(features, activate, dtype)(x)
            x = activate(x)
        if self.torso == "hadamax":
            for features, size, pool_size, pool_stride in HADAMAX_BLOCKS:
                x = HadamaxBlock(features, size, pool_size, pool_stride, dtype)(x)

        # The hidden layers of an MLP are its torso, but for the last where dueling has two of it.
        of_torso = len(self.hidden) - self.dueling if self.torso == "mlp" else 0
        x = x.reshape(x.shape[0], -1)
        if self.noisy and noise:
            drawn.draw(jax.random.fold_in(noise_key, 0), (x.shape[-1], *self.hidden[:of_torso]), ())
        for width in self.hidden[:of_torso]:
            x = activate(dense(width, x))

        def outputs(x: jax.Array, width: int, shape: tuple[int, ...]) -> jax.Array:
            x = dense(width * math.prod(shape), x).astype(jnp.float32)
            return x.reshape(*x.shape[:-1], width, *shape)

        def streams(x: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
            shared, last = (self.hidden[:-1], self.hidden[-1:]) if self.dueling else (self.hidden, ())
            if self.noisy and noise:
                ends = (1, self.num_actions) if self.dueling else (self.num_actions,)
                own = [(*last, actions * math.prod(shape)) for actions in ends]
                drawn.draw(jax.random.fold_in(noise_key, 1), (x.shape[-1], *shared[of_torso:]), own)
            for width in shared[of_torso:]:
                x = activate(dense(width, x))
            if not self.dueling:
                return outputs(x, self.num_actions, shape)
            both = []
            for actions in (1, self.num_actions):
                stream = x
                for width in last:
                    stream = activate(dense(width, stream))
                both.append(outputs(stream, actions, shape))
            value, advantage = both
            return value + advantage - jnp.mean(advantage, axis=-1 - len(shape), keepdims=True)

        return self.head(streams, x, key, support)


def make_network(settings: NetworkSettings, spec: EnvSpec, head: Head) -> Network:
    """The network of the settings for an environment's observations and actions.

    Raises:
      ConfigError: if the torso does not fit the observations.
    """
    torso = choose_torso(spec.obs_shape, spec.obs_dtype) if settings.torso == "auto" else settings.torso
    least = smallest_image(torso)
    if torso != "mlp" and (len(spec.obs_shape) not in (3, 4) or min(spec.obs_shape[:2]) < least):
        raise ConfigError(
            f"torso: '{torso}' needs [H, W, C] observations of at least {least}x{least}, and {spec.name} gives "
            f"{list(spec.obs_shape)}; use another torso, such as mlp."
        )
    return Network(
        spec.num_actions,
        torso=torso,
        hidden=settings.hidden,
        activation=settings.activation,
        layer_norm=settings.layer_norm,
        dueling=settings.dueling,
        noisy=settings.noisy,
        weight_init=settings.weight_init,
        compute_dtype=settings.compute_dtype,
        head=head,
    )
