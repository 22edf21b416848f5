"""Euler's method on the diffusion's ordinary differential equation (Karras et al. 2022), as SDXL's scheduler takes it.

Training made noisy latents of a clean x as sqrt(a) x + sqrt(1 - a) noise. Here they are x + sigma noise, with
sigma^2 = (1 - a) / a: the network's input is that divided by sqrt(sigma^2 + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench_sdxl.config import SchedulerConfig
from loadgen.contracts import InputError

STEPS = 20
"""The benchmark's."""
_KNOWN = SchedulerConfig()


@dataclass(frozen=True)
class Schedule:
    """Of `steps` steps, the timesteps that the network is told, and `steps + 1` sigmas, the last of them 0."""

    timesteps: npt.NDArray[np.float32]
    sigmas: npt.NDArray[np.float32]

    @property
    def first_scale(self) -> float:
        """What the fixed latents, of deviation 1, are multiplied by."""
        return float(np.sqrt(self.sigmas[0].astype(np.float64) ** 2 + 1))


def noise_levels(config: SchedulerConfig) -> npt.NDArray[np.float64]:
    """a, the share of the image's variance that is left, at each training step."""
    roots = np.linspace(config.beta_start**0.5, config.beta_end**0.5, config.num_train_timesteps)
    levels: npt.NDArray[np.float64] = np.cumprod(1 - roots**2)
    return levels


def schedule(config: SchedulerConfig, steps: int = STEPS) -> Schedule:
    """Evenly spaced timesteps from the leading end, offset by one. Raises InputError for another kind of schedule."""
    for name in ("beta_schedule", "timestep_spacing", "prediction_type"):
        if getattr(config, name) != getattr(_KNOWN, name):
            raise InputError(
                f"scheduler_config.json: {name} {getattr(config, name)!r}: the benchmark's is "
                f"{getattr(_KNOWN, name)!r}; fetch the official file"
            )
    if not 0 < config.beta_start <= config.beta_end < 1:
        raise InputError(
            f"scheduler_config.json: beta_start {config.beta_start} and beta_end {config.beta_end} do not rise between "
            "0 and 1; fetch the official file"
        )
    timesteps = (np.arange(steps) * (config.num_train_timesteps // steps))[::-1] + config.steps_offset
    if steps > config.num_train_timesteps or not 0 <= timesteps[-1] <= timesteps[0] < config.num_train_timesteps:
        raise InputError(
            f"scheduler_config.json: num_train_timesteps {config.num_train_timesteps} with steps_offset "
            f"{config.steps_offset} leave no room for {steps} steps; fetch the official file"
        )
    levels = noise_levels(config)[timesteps]
    sigmas = np.append(np.sqrt((1 - levels) / levels), 0.0)
    return Schedule(timesteps.astype(np.float32), sigmas.astype(np.float32))
