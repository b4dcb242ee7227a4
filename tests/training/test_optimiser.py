"""Muon and AdamW against torch's own, averages against the weighted sum that they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from training.toy import Net
from unnoise.training import optimiser as optimisers
from unnoise.training.averages import PowerAverage, gamma_of, swapped
from unnoise.training.optimiser import Optimiser, orthogonalise, together, wants_muon
from unnoise.training.settings import TrainSettings

STEPS = 25


def gradients(module: nn.Module, seed: int, scale: float = 1.0) -> None:
    """The same random gradients for equal modules."""
    g = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=g).to(parameter.dtype)


def twins(make: type[nn.Module] | object) -> tuple[nn.Module, nn.Module]:
    pair = []
    for _ in range(2):
        torch.manual_seed(1)
        pair.append(make())  # type: ignore[operator]
    return pair[0], pair[1]


class Plain(nn.Module):
    """A matrix, a convolution and vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.tall = nn.Linear(7, 5), nn.Linear(5, 11)
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.LayerNorm(6)


@pytest.mark.parametrize("scale", [0.01, 100.0])  # below and above the clip
def test_adamw_is_torchs(scale: float) -> None:
    """Equal settings; as usual, and unlike torch's default, vectors are not decayed, and gradients are clipped."""
    ours, theirs = (m.double() for m in twins(Plain))
    settings = TrainSettings(samples=1, rate=3e-3, matrix_rate=0, weight_decay=0.1, clip=1.0)
    optimiser = Optimiser(ours, settings, rate=0.5)
    decayed = [p for p in theirs.parameters() if p.ndim >= 2]
    plain = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), eps=1e-8)
    for step in range(STEPS):
        factor = 1 / (step + 1)
        for group in reference.param_groups:
            group["lr"] = 3e-3 * 0.5 * factor
        gradients(ours, step, scale)
        gradients(theirs, step, scale)
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        assert float(optimiser.gradient_norm()) == pytest.approx(float(norm), rel=1e-12)
        optimiser.step(factor)
        reference.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_muon_is_torchs(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal settings and scaling, sqrt(max(1, rows / columns)).

    Two differences: torch orthogonalises in bfloat16 everywhere, ours in full precision on a processor; and torch's
    momentum is the mean of gradients where ours, as first published, is their sum, which orthogonalising makes equal.
    """
    if not bfloat16:
        monkeypatch.setattr(Tensor, "bfloat16", lambda self: self)
    ours, theirs = (nn.ModuleList([m.wide, m.tall]).double() for m in twins(Plain))
    optimiser = Optimiser(ours, TrainSettings(samples=1, matrix_rate=0.02, weight_decay=0.1))
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    reference = torch.optim.Muon(matrices, lr=1.0, weight_decay=0.1, momentum=0.95, nesterov=True, ns_steps=5)
    assert list(optimiser.matrices) == ["0.weight", "1.weight"]
    worst = 0.0
    for step in range(STEPS):
        factor = 1 / (step + 1)
        reference.param_groups[0]["lr"] = 0.02 * factor
        gradients(ours, step)
        gradients(theirs, step)
        optimiser.step(factor)
        reference.step()
        for a, b in zip(optimiser.matrices.values(), matrices, strict=True):
            worst = max(worst, float((a - b).detach().abs().max()))
    assert worst < (0.02 if bfloat16 else 1e-7), worst


def test_convolutions_are_matrices_to_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel is flattened to (outputs, inputs x height x width), and matrices of one shape go through as one."""
    monkeypatch.setattr(Tensor, "bfloat16", lambda self: self)
    conv, flat = nn.Conv2d(3, 8, 3, bias=False).double(), nn.Linear(27, 8, bias=False).double()
    flat.weight.data = conv.weight.data.reshape(8, 27).clone()
    settings = TrainSettings(samples=1)
    optimisers = [Optimiser(conv, settings), Optimiser(flat, settings)]
    for seed in range(3):
        gradients(conv, seed)
        flat.weight.grad = conv.weight.grad.reshape(8, 27).clone()
        for optimiser in optimisers:
            optimiser.step(1.0)
    assert torch.allclose(conv.weight.reshape(8, 27), flat.weight, rtol=1e-12)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(4, 16, 16), (1, 8, 27), (3, 40, 6)])
def test_orthogonalised_matrices_are_nearly_orthogonal(shape: tuple[int, int, int], half: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalise(x, steps=5, half=half))
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.25
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    assert float(((orthogonalise(x, half=half) * (u @ v)).sum((1, 2)) / (u @ v).pow(2).sum((1, 2))).min()) > 0.8, (
        "the same sense"
    )


def test_edges_and_vectors_are_not_muons() -> None:
    optimiser = Optimiser(Net(), TrainSettings(samples=1))
    assert set(optimiser.matrices) == {"hidden.weight"}
    assert set(optimiser.others) == {"enter.weight", "enter.bias", "hidden.bias"}
    assert wants_muon("a", nn.Parameter(torch.ones(2, 2)), nn.Module())


def test_parameters_without_gradient_stay() -> None:
    module = Plain()
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    optimiser = Optimiser(module, TrainSettings(samples=1))
    gradients(module, 0)
    module.tall.weight.grad = None
    module.norm.bias.grad = None
    optimiser.step(1.0)
    same = {n for n, p in module.named_parameters() if torch.equal(p, before[n])}
    assert same == {"tall.weight", "norm.bias"}


def test_optimiser_state_travels() -> None:
    ours, theirs = twins(Plain)
    one, other = (Optimiser(m, TrainSettings(samples=1)) for m in (ours, theirs))
    for step in range(3):
        gradients(ours, step)
        one.step(1.0)
    theirs.load_state_dict(ours.state_dict())
    other.load({k: v.clone() for k, v in one.state().items()})
    for step in range(3, 6):
        for module, optimiser in ((ours, one), (theirs, other)):
            gradients(module, step)
            optimiser.step(0.5)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    with pytest.raises(KeyError, match="optimiser state differs in"):
        other.load({k: v for k, v in one.state().items() if k != "momentum/wide.weight"})


# averages


def profile(steps: int, gamma: float) -> list[float]:
    """The weight of each step's weights in the average after ``steps``: the definition, multiplied out in exact floats.

    Karras et al. 2023 (arXiv 2312.02696), section 3.1: the average after step t keeps (1 - 1/t)^(gamma + 1) of itself.
    """
    betas = [(1 - 1 / t) ** (gamma + 1) for t in range(1, steps + 1)]
    return [(1 - betas[i]) * math.prod(betas[i + 1 :]) for i in range(steps)]


@pytest.mark.parametrize("width", [0.05, 0.1, 0.25])
def test_averages_are_the_weighted_sum(width: float) -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 3).double()
    average = PowerAverage(module, width)
    history: list[Tensor] = []
    g = torch.Generator().manual_seed(0)
    for step in range(1, 201):
        module.weight.data += torch.randn(3, 4, generator=g, dtype=torch.float64)
        history.append(module.weight.detach().clone())
        average.update(step)
        if step in (1, 2, 17, 200):
            weights = profile(step, average.gamma)
            assert sum(weights) == pytest.approx(1, abs=1e-12), "the start is forgotten"
            direct = sum(w * h for w, h in zip(weights, history, strict=True))
            assert float((average.tensors["weight"] - direct).abs().max()) < 1e-10


def moments(weights: Sequence[float]) -> float:
    """The relative width of a profile: its standard deviation over its length."""
    times = [(i + 0.5) / len(weights) for i in range(len(weights))]
    mean = sum(w * t for w, t in zip(weights, times, strict=True))
    return math.sqrt(sum(w * (t - mean) ** 2 for w, t in zip(weights, times, strict=True)))


def test_widths_are_what_they_are_called() -> None:
    """The published pairs (gamma 16.97 is sigma_rel 0.05, 6.94 is 0.10), and the profile's own deviation."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.01)
    for width in (0.03, 0.05, 0.1, 0.2):
        gamma = gamma_of(width)
        assert (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)) == pytest.approx(width**2, rel=1e-10)
        assert moments(profile(4000, gamma)) == pytest.approx(width, rel=2e-3)


def test_a_module_has_its_averages_weights_for_a_while() -> None:
    """And its own buffers; whatever becomes of them meanwhile, it gets back what it had, and nothing is copied."""
    net = Net()
    average = PowerAverage(net, 0.1)
    net.mean.fill_(3.0)
    net.enter.weight.data.fill_(9.0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    places = [tensor.data_ptr() for tensor in net.state_dict().values()]
    with swapped([(net, average)]):
        assert torch.equal(net.mean, torch.full((4,), 3.0))
        assert torch.equal(net.enter.weight, average.tensors["enter.weight"])
        assert not torch.equal(net.enter.weight, before["enter.weight"])
        net.mean.fill_(5.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert places == [tensor.data_ptr() for tensor in net.state_dict().values()]
    other = PowerAverage(Net(), 0.1)
    other.load(average.tensors)
    assert all(torch.equal(a, b) for a, b in zip(other.tensors.values(), average.tensors.values(), strict=True))
    with pytest.raises(KeyError, match="average differs in"):
        other.load({"enter.weight": torch.ones(4, 3)})


def test_few_or_many_at_once_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit: all pieces share one clip."""
    whole, pieces = twins(Plain)
    settings = TrainSettings(samples=1, matrix_rate=0, clip=1.0)
    for module, numbers in ((whole, 2**24), (pieces, 20)):
        monkeypatch.setattr(optimisers, "AT_A_TIME", numbers)
        optimiser = Optimiser(module, settings)
        for step in range(3):
            gradients(module, step, 10.0)
            optimiser.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), pieces.parameters(), strict=True))
    groups = list(together(dict(pieces.named_parameters()), 20))
    assert len(groups) > 4
    assert [name for names in groups for name in names] == [name for name, _ in pieces.named_parameters()]
    sizes = [sum(pieces.get_parameter(name).numel() for name in names) for names in groups]
    assert all(size <= 20 or len(names) == 1 for size, names in zip(sizes, groups, strict=True))
    assert list(together({}, 20)) == []
    gradients(whole, 5, 10.0)
    norms = [sum(float(whole.get_parameter(n).grad.norm()) ** 2 for n in names) ** 0.5 for names in groups]  # type: ignore[union-attr]
    assert len({round(norm, 3) for norm in norms}) > 1, "pieces of their own would be clipped otherwise"
