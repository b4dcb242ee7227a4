"""Diffusion in sixty lines: learn two moons, then draw from them. ``python examples/minimal.py moons.png``"""

import math
import sys

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from unnoise.core.denoiser import Denoiser
from unnoise.core.noise import NoiseSource
from unnoise.core.sample import sample
from unnoise.paths.flow import Flow
from unnoise.predictions.flow import FlowVelocity
from unnoise.solvers.heun import Heun
from unnoise.spacings.trailing import Trailing


def moons(count: int) -> Tensor:  # (count, 2) points on two half circles of radius 1, a little blurred
    angle = math.pi * torch.rand(count)
    arc = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return torch.where(torch.rand(count, 1) < 0.5, arc, -arc) + 0.05 * torch.randn(count, 2)


class Network(nn.Sequential):
    def forward(self, x: Tensor, noise_label: Tensor, cond=None, edits=(), read=()) -> tuple[Tensor, dict]:
        inputs = torch.cat([x, noise_label[:, None] / 1000], 1)  # (B, 3) where it is, and when
        waves = (inputs[:, :, None] * torch.tensor([1.0, 2.0, 4.0])).flatten(1)
        return super().forward(torch.cat([inputs, waves.sin(), waves.cos()], 1)), {}


def train(steps: int = 2000, batch: int = 512) -> Denoiser:
    network = Network(nn.Linear(21, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2))
    denoiser = Denoiser(network, Flow(), FlowVelocity(), noise_label="time")
    optimiser = torch.optim.Adam(denoiser.parameters())
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        x0, eps, t = moons(batch), torch.randn(batch, 2), torch.rand(batch)
        level = denoiser.path.at(t)
        output, _ = denoiser.output(level.mix(x0, eps), t, level)
        loss = (output - denoiser.prediction.encode(x0, eps, level)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return denoiser


@torch.no_grad()
def draw(denoiser: Denoiser, count: int = 1000, num_steps: int = 20) -> Tensor:
    levels, noise = Trailing().levels(denoiser.path, num_steps), NoiseSource(range(count), (2,))
    return list(sample(denoiser, Heun(), levels, noise.initial(), noise))[-1].run.x


if __name__ == "__main__":
    points = draw(train())
    print(f"{len(points)} points, mean {points.mean(0).tolist()}, standard deviation {points.std(0).tolist()}")
    if len(sys.argv) > 1:
        plt.scatter(*points.T, s=2)
        plt.savefig(sys.argv[1])
