"""Our networks beside the same ones of diffusers' modules, and how long a picture takes.

    python bench/networks.py forward
    python bench/networks.py training
    python bench/networks.py generate
    python bench/networks.py profile
    python bench/networks.py forward --network dit

Both hold the same weights, and must agree to 1e-4 in float32 before anything is timed. Each side then runs at its
fastest setting, which is found by trying: float32 or bfloat16, channels last or first. Two rows more have ours compiled
at that setting, as ``--compile`` does it, beside theirs as it was, and beside theirs compiled in the same way.
``--seconds`` bounds a run, but for the time that compiling takes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from harness import Call, Ratio, Work, agree, clocked, fastest, machine, paired, peak, whole, work
from same_shape import DiffusersDiT, DiffusersUNet
from torch import Tensor, nn

from unnoise.core.condition import Condition
from unnoise.kernels.compiled import compile_network
from unnoise.networks.dit import DiT
from unnoise.networks.unet import UNet

NETWORKS: dict[str, tuple[Any, Any]] = {"unet": (UNet, DiffusersUNet), "dit": (DiT, DiffusersDiT)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
Asked = tuple[Tensor, Tensor, Condition]
Make = Callable[[nn.Module, torch.dtype, torch.memory_format, bool], Any]
HEAD = "| {} | unnoise, ms | diffusers, ms | diffusers / unnoise | unnoise's part of the peak |\n|---|---|---|---|---|"


def pair(network: str, amount: float = 0.02) -> tuple[nn.Module, nn.Module]:
    """A network of ours at its default shape and the same of diffusers' modules.

    Noise on the weights gives everything in it a say.
    """
    torch.manual_seed(0)
    ours: Any = NETWORKS[network][0]()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(amount * torch.randn_like(parameter))
    theirs = NETWORKS[network][1](ours.config).take(ours)
    return ours.to(memory_format=torch.channels_last).eval(), theirs.eval()  # type: ignore[call-overload]


def question(rows: int) -> Asked:
    """A state, labels, and prompts of 4 to 16 tokens in rows of 32: what 32 captions of the emoji set come to."""
    noise = torch.Generator().manual_seed(1)
    mask = torch.arange(32) < 4 + torch.arange(rows)[:, None] % 13
    tokens, pooled = torch.randn(rows, 32, 256, generator=noise), torch.randn(rows, 256, generator=noise)
    x, label = torch.randn(rows, 4, 16, 16, generator=noise), 1000 * torch.rand(rows, generator=noise)
    return x, label, Condition(tokens, mask, pooled)


def answer(network: nn.Module, asked: Asked) -> Tensor:
    """The output of either."""
    x, label, c = asked
    said = (
        network(x, label, c) if isinstance(network, UNet | DiT) else network(x, label, c.tokens, c.token_mask, c.pooled)
    )
    return said[0] if isinstance(said, tuple) else said  # type: ignore[no-any-return]


def settings(network: nn.Module, make: Make) -> dict[str, Any]:
    """What is made of it at each setting; ours chooses its layout by itself."""
    layouts = {"channels last": torch.channels_last} if isinstance(network, UNet | DiT) else LAYOUTS
    return {
        f"{kind}, {layout}": make(network, dtype, order, False)
        for kind, dtype in DTYPES.items()
        for layout, order in layouts.items()
    }


def choices(ours: dict[str, Call], theirs: dict[str, Call], seconds: float) -> dict[str, tuple[str, str]]:
    """{row: (our setting, theirs)}: either's fastest, and either's fastest in float32."""
    both = []
    for calls in (ours, theirs):
        single = {name: call for name, call in calls.items() if name.startswith("float32")}
        both.append(
            (fastest(calls, seconds / 4), fastest(single, seconds / 4) if len(single) > 1 else next(iter(single)))
        )
    (a, a32), (b, b32) = both
    return {"fastest": (a, b), "float32": (a32, b32)}


def compiled(network: nn.Module, make: Make, setting: str) -> Any:
    """What is made of it at a setting of that name, compiled."""
    kind, layout = setting.split(", ")
    return make(network, DTYPES[kind], LAYOUTS[layout], True)


def pairs(ours: nn.Module, theirs: nn.Module, make: Make, seconds: float) -> Iterator[tuple[str, str, str, Any, Any]]:
    """(row, our setting, theirs, what is made of ours, what of theirs) for each row of a table."""
    mine, other = (settings(network, make) for network in (ours, theirs))
    chosen = choices(mine, other, seconds)
    for name, (a, b) in chosen.items():
        yield name, a, b, mine[a], other[b]
    a, b = chosen["fastest"]
    fast = compiled(ours, make, a)
    yield "ours compiled", f"{a}, compiled", b, fast, other[b]
    yield "both compiled", f"{a}, compiled", f"{b}, compiled", fast, compiled(theirs, make, b)


def row(name: str, found: Ratio, ours: str, theirs: str, least: float) -> None:
    """One line of a table; ``least`` is how many seconds the work takes at the processor's peak."""
    spread = f"{found.ratio:.2f} ({found.low:.2f} to {found.high:.2f}, {found.rounds} rounds)"
    mine, other = f"{1e3 * found.ours:.1f} ({ours})", f"{1e3 * found.theirs:.1f} ({theirs})"
    share = f"{least / found.ours:.0%}" if least else ""
    print(f"| {name} | {mine} | {other} | {spread} | {share} |", flush=True)


def peaks_told() -> dict[str, Work]:
    """The processor's peaks by dtype, printed."""
    found = {name: peak(dtype) for name, dtype in DTYPES.items()}
    for name, told in found.items():
        print(f"peak, {name}: convolutions {told.convolutions / 1e9:.0f}, products {told.products / 1e9:.0f} GFLOP/s")
    return found


def forward(seconds: float, network: str) -> None:
    """One call without gradients: a row, a picture with guidance, a batch."""
    ours, theirs = pair(network)
    peaks = peaks_told()

    def make(asked: Asked) -> Make:
        def call(network: nn.Module, dtype: torch.dtype, order: torch.memory_format, fast: bool) -> Call:
            moved = copy.deepcopy(network).to(dtype=dtype, memory_format=order)  # type: ignore[call-overload]
            if fast:
                compile_network(moved)
            x, label, cond = asked
            told = (x.to(dtype).contiguous(memory_format=order), label, cond.to(dtype=dtype))
            return lambda: answer(moved, told)

        return call

    print(HEAD.format("rows, setting"))
    with torch.inference_mode():
        for rows in (1, 2, 32):
            asked = question(rows)
            agree(answer(ours, asked), answer(theirs, asked))
            done = work(make(asked)(ours, torch.float32, torch.channels_last, False))
            for name, a, b, mine, other in pairs(ours, theirs, make(asked), 0.1 * seconds):
                mine(), other()  # compiles what is to be compiled
                found = paired(whole(mine), whole(other), 0.1 * seconds)["all"]
                row(f"{rows}, {name}", found, a, b, done.floor(peaks[a.split(",")[0]]))


class Training:
    """A training step of one network: squared error, weights and gradients in float32, bfloat16 by autocast, AdamW."""

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, order: torch.memory_format, fast: bool, asked: Asked
    ) -> None:
        self.network = copy.deepcopy(network).to(memory_format=order).train()  # type: ignore[call-overload]
        if fast:
            compile_network(self.network)
        self.dtype, (x, label, cond) = dtype, asked
        self.asked = (x.contiguous(memory_format=order), label, cond)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-6)

    def loss(self) -> Tensor:
        """The mean squared error against the state."""
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            said = answer(self.network, self.asked)
        return (said.float() - self.asked[0]).square().mean()

    def __call__(self) -> dict[str, float]:
        """A step; the seconds of its parts."""
        self.network.zero_grad(set_to_none=True)
        started = time.perf_counter()
        loss = self.loss()
        forward = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]
        backward = time.perf_counter()
        self.optimiser.step()
        done = time.perf_counter()
        return {
            "forward and loss": forward - started,
            "backward": backward - forward,
            "optimiser, AdamW": done - backward,
            "together": done - started,
        }


def training(seconds: float, network: str, rows: int = 32) -> None:
    """Steps of both sides, by their parts; then what our own optimiser takes."""
    from unnoise.training.optimiser import Optimiser
    from unnoise.training.settings import TrainSettings

    ours, theirs = pair(network)
    asked = question(rows)
    agree(answer(ours, asked), answer(theirs, asked))
    peaks = peaks_told()

    def make(network: nn.Module, dtype: torch.dtype, order: torch.memory_format, fast: bool) -> Training:
        return Training(network, dtype, order, fast, asked)

    single = make(ours, torch.float32, torch.channels_last, False)
    onward, both = work(single.loss), work(single)
    back = Work(both.convolutions - onward.convolutions, both.products - onward.products)
    works = {"forward and loss": onward, "backward": back, "together": both}
    print(HEAD.format(f"{rows} rows"))
    for name, a, b, mine, other in pairs(ours, theirs, make, 0.1 * seconds):
        mine(), other()  # compiles what is to be compiled
        for part, found in paired(mine, other, 0.4 * seconds).items():
            least = works[part].floor(peaks[a.split(",")[0]]) if part in works else 0.0
            row(f"{part}, {name}", found, a, b, least)
    own = Optimiser(single.network, TrainSettings(samples=1000))
    took = statistics.median(clocked(lambda: own.step(1e-6)) for _ in range(3))
    print(f"unnoise's own optimiser, Muon and AdamW: {1e3 * took:.0f} ms")


COLD = """
import time; started = time.perf_counter()
import torch; imported = time.perf_counter()
import unnoise, unnoise.cli.generate, unnoise.engine.load; ours = time.perf_counter()
engine = unnoise.load(); loaded = time.perf_counter()
engine.generate("red apple", seed=1)[0].save("{}"); drawn = time.perf_counter()
print(imported - started, ours - imported, loaded - ours, drawn - loaded)
"""


def generate(seconds: float, network: str) -> None:
    """A prompt to a PNG file at the default settings: warm, by its parts, and as a command, process start included."""
    import unnoise

    engine, folder = unnoise.load(), Path(tempfile.mkdtemp())
    file = folder / "a.png"
    with torch.inference_mode():
        cond = Condition.cat([engine.model.encode(["red apple"]), engine.model.encode([""])])
        x, z = torch.randn(2, 4, 16, 16), torch.randn(1, 4, 16, 16)
        picture = engine.model.decode(z)[0]
        label = torch.full((2,), 500.0)
        steps: dict[str, Call] = {
            "prompt to PNG": lambda: engine.generate("red apple", seed=1)[0].save(file),
            "prompt and empty prompt to vectors": lambda: (
                engine.model.encode(["red apple"]),
                engine.model.encode([""]),
            ),
            "one call of the network for both": lambda: engine.model.denoiser.network(x, label, cond),
            "latent to picture": lambda: engine.model.decode(z),
            "picture to PNG": lambda: picture.save(file),
        }
        print(f"{engine.model.defaults}\n| part | ms, median | quartiles | times |\n|---|---|---|---|")
        for name, call in steps.items():
            call()
            end, times = time.perf_counter() + seconds / 10, list[float]()
            while len(times) < 5 or time.perf_counter() < end:
                times.append(1e3 * clocked(call))
            low, middle, high = statistics.quantiles(times, n=4)
            print(f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {len(times)} |", flush=True)
    command = [sys.executable, "-m", "unnoise", "generate", "red apple", "--seed", "1", "--out", str(folder)]
    runs = [clocked(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(4)]
    print(f"command, cold: first {runs[0]:.2f} s, then {statistics.median(runs[1:]):.2f} s")
    said = subprocess.run([sys.executable, "-c", COLD.format(file)], check=True, capture_output=True, text=True)
    names = ("import torch", "import unnoise", "load and check the model", "draw the first picture")
    print("of it: " + ", ".join(f"{n} {float(s):.2f} s" for n, s in zip(names, said.stdout.split(), strict=True)))


KINDS = {"convolutions": ("conv",), "products": ("mm", "linear", "attention")}  # by parts of operators' names


def of(operator: str) -> str:
    """The kind of an operator of torch's, "" for one that is neither."""
    return next((kind for kind, parts in KINDS.items() if any(part in operator for part in parts)), "")


def profile(seconds: float, network: str, calls: int = 10) -> None:
    """Where the time goes, ours and theirs: ten calls with two rows in float32, and a training step in bfloat16.

    Below each table the part of the peak that convolutions reach, and products of matrices, each in their own time.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    peaks = peaks_told()
    for side in pair(network):
        step = Training(side, torch.bfloat16, torch.channels_last, False, question(32))
        asked = question(2)

        def draw(side: nn.Module = side, asked: Asked = asked) -> None:
            with torch.inference_mode():
                for _ in range(calls):
                    answer(side, asked)

        for name, call in (("10 calls, 2 rows, float32", draw), ("training step, 32 rows, bfloat16", step)):
            top = peaks[name.split(", ")[-1]]
            call()
            with profiled(activities=[ProfilerActivity.CPU]) as seen:
                call()
            print(f"{type(side).__name__}, {name}")
            averages = seen.key_averages()
            table = averages.table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=40)
            print("\n".join(line[:105] for line in table.splitlines()))
            took = {kind: sum(e.self_cpu_time_total for e in averages if of(e.key) == kind) / 1e6 for kind in KINDS}
            for kind, least in zip(KINDS, work(call), strict=True):
                share = f"{least / getattr(top, kind) / took[kind]:.0%} of the peak" if took[kind] else "none"
                print(f"{kind}: {least / 1e9:.1f} GFLOP in {1e3 * took[kind]:.0f} ms, {share}")


def main() -> None:
    verbs: dict[str, Callable[[float, str], None]] = {
        "forward": forward, "training": training, "generate": generate, "profile": profile
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*verbs])
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to measure, about; at most 180")
    parser.add_argument("--network", choices=[*NETWORKS], default="unet", help="of forward, training and profile")
    told = parser.parse_args()
    warnings.simplefilter("ignore")
    print(machine())
    verbs[told.what](min(told.seconds, 180.0), told.network)


if __name__ == "__main__":
    main()
