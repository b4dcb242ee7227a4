"""A model of many parts: several text towers, precisions and denoisers; and noise of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from drawing import draw
from unnoise.core.denoiser import Denoiser
from unnoise.core.noise import NoiseSource, TorchNoise
from unnoise.core.registry import find
from unnoise.encoders.clip_text import CLIPText, CLIPTextConfig
from unnoise.engine.conditioner import Conditioner, Layout, Tower
from unnoise.engine.engine import Engine
from unnoise.engine.load import load_engine
from unnoise.engine.model import Model
from unnoise.errors import UnnoiseError
from unnoise.networks.sd_unet import SDUNet, SDUNetConfig
from unnoise.networks.unet import UNet
from unnoise.weights.model import save_model

PROMPT = "red apple"


def tower(width: int, length: int, seed: int) -> CLIPText:
    torch.manual_seed(seed)
    words = tiny.tokenizer(length)
    config = CLIPTextConfig(words.vocabulary, length, width=width, depth=1, heads=2, hidden=64, end=words.end)
    return tiny.lively(CLIPText(config))


def model(**parts: nn.Module) -> Model:
    """The tiny model with further parts, or others in the place of its own."""
    whole = tiny.components() | {name.replace("__", "."): part for name, part in parts.items()}
    if any(name.startswith("text.") for name in whole):
        del whole["text"]
    lengths = {name: part.config.length for name, part in whole.items() if isinstance(part, CLIPText)}
    tokenizers = {name: tiny.tokenizer(length) for name, length in lengths.items()}
    return Model(whole, tokenizers, {"name": "tiny", "defaults": tiny.DEFAULTS})


def weak() -> Denoiser:
    torch.manual_seed(8)
    return tiny.lively(Denoiser(UNet(tiny.UNET), find("paths", "flow")(), find("predictions", "flow")()), 0.2)


def test_autoguidance_is_typed_and_asks_a_part_by_name() -> None:
    engine, strong = Engine(model(weak=weak())), Engine(model())
    weaker = Engine(model(denoiser=weak()))
    s, w = (draw(each, [PROMPT], [1], steps=1, guidance="plain") for each in (strong, weaker))
    guided = engine.request(PROMPT, seed=1, steps=1, guidance="autoguidance(3)")
    assert guided.guidance == "autoguidance(3)"
    assert guided.from_json(guided.to_json()) == guided
    found = draw(engine, [PROMPT], [1], steps=1, guidance="autoguidance(3)")
    assert not torch.equal(found, s)
    states = [engine.model.shape(guided)]
    assert states
    latent = {}
    for name, each, how in (("s", strong, "plain"), ("w", weaker, "plain"), ("g", engine, "autoguidance(3)")):
        (done,) = [e for e in each.draw([each.request(PROMPT, seed=1, steps=1, guidance=how)]) if hasattr(e, "latents")]
        latent[name] = done.latents
    line = latent["w"] + 3 * (latent["s"] - latent["w"])
    assert torch.allclose(latent["g"], line, atol=1e-4)
    assert not torch.allclose(latent["g"], latent["s"], atol=1e-2), "the control"
    assert s.shape == w.shape
    with pytest.raises(UnnoiseError, match="'weak', and there is only denoiser"):
        strong.generate(PROMPT, guidance="autoguidance")


def test_a_scale_for_the_network_is_refused_where_it_reads_none() -> None:
    for guidance in ("embedded(4)", "rescale(embedded(4))"):
        with pytest.raises(UnnoiseError, match="network takes no scale"):
            Engine(model()).generate(PROMPT, guidance=guidance)


def test_a_network_that_takes_a_scale_and_numbers_is_given_them() -> None:
    """A latent consistency network of Stable Diffusion XL's kind: it reads scale, size and pooled prompt."""
    torch.manual_seed(6)
    network = SDUNet(SDUNetConfig.tiny())
    whole = model(denoiser=tiny.lively(Denoiser(network, find("paths", "scaled-linear")(), find("predictions", "v")())))
    whole.conditioner.layout = Layout((("text",),), ("text",), ("height", "width"), "zeros")
    engine = Engine(whole)
    how = {"solver": "lcm", "spacing": "lcm", "steps": 2}
    drawn = [draw(engine, [PROMPT], [1], guidance=f"embedded({scale})", **how) for scale in (8.5, 4)]
    assert torch.isfinite(drawn[0]).all()
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-4), "the scale has a say"
    assert torch.equal(drawn[0], draw(engine, [PROMPT], [1], "dog", guidance="embedded(8.5)", **how)), "no second call"
    for guidance in ("cfg(3)", "plain"):
        with pytest.raises(UnnoiseError, match="network takes the scale itself"):
            engine.generate(PROMPT, guidance=guidance)


def test_towers_lie_one_after_the_other_or_side_by_side() -> None:
    towers = {"a": Tower(tower(24, 32, 1), tiny.tokenizer(32)), "b": Tower(tower(8, 20, 2), tiny.tokenizer(20))}
    a, b = (each.network(each.tokenizer([PROMPT])) for each in towers.values())
    apart = Conditioner(towers)([PROMPT])
    assert apart.tokens.shape == (1, 52, 24)
    assert torch.equal(apart.tokens[:, :32], a.tokens)
    assert torch.equal(apart.tokens[:, 32:, :8], b.tokens)
    assert not apart.tokens[:, 32:, 8:].any()
    assert torch.equal(apart.token_mask, torch.cat([a.token_mask, b.token_mask], 1))
    assert torch.equal(apart.pooled, torch.cat([a.pooled, b.pooled], 1))
    beside = Conditioner(towers, Layout((("a", "b"),), ("b",)))([PROMPT])
    assert beside.tokens.shape == (1, 32, 32)
    assert torch.equal(beside.tokens[:, :20, 24:], b.tokens)
    assert not beside.tokens[:, 20:, 24:].any()
    assert torch.equal(beside.pooled, b.pooled)
    with pytest.raises(UnnoiseError, match="tower"):
        Conditioner(towers, Layout((("a", "c"),), ()))
    with pytest.raises(UnnoiseError, match="the model reads 18"):
        Conditioner(towers).read("red apple " * 10)


def test_a_model_of_several_towers_and_precisions_draws() -> None:
    wide = UNet(tiny.UNET)
    assert wide.config.text_width == 32
    parts = {"text__a": tower(32, 32, 1), "text__b": tower(32, 20, 2).to(torch.bfloat16)}
    whole = model(**parts)
    whole.conditioner.layout = Layout((("text.a",), ("text.b",)), ("text.a",))
    whole.autoencoder.to(torch.bfloat16)
    engine = Engine(whole)
    drawn = draw(engine, [PROMPT, "blue heart"], [1, 2], negative="dog")
    assert torch.isfinite(drawn).all()
    assert float((drawn[0] - drawn[1]).abs().max()) > 0.01
    swapped = model(text__a=tower(32, 32, 1), text__b=tower(32, 20, 3).to(torch.bfloat16))
    swapped.conditioner.layout = whole.conditioner.layout
    swapped.autoencoder.to(torch.bfloat16)
    assert not torch.equal(draw(Engine(swapped), [PROMPT], [1]), drawn[:1]), "the control: the second tower has a say"


def test_torch_noise_is_what_diffusers_draws() -> None:
    randn = pytest.importorskip("diffusers.utils.torch_utils").randn_tensor
    for seed in (0, 1, 12345, 2**40 + 7):
        theirs = randn((1, 4, 16, 20), generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)
        assert torch.equal(TorchNoise([seed], (4, 16, 20)).initial(), theirs)
        listed = randn((2, 4, 8, 8), generator=[torch.Generator("cpu").manual_seed(s) for s in (seed, 3)])
        assert torch.equal(TorchNoise([seed, 3], (4, 8, 8)).initial(), listed)
        assert not torch.equal(NoiseSource([seed], (4, 16, 20)).initial(), theirs), "the control"
    torch.manual_seed(9)  # as ComfyUI draws it for one picture
    assert torch.equal(TorchNoise([9], (4, 8, 8)).initial(), torch.randn([1, 4, 8, 8]))


def test_torch_noise_starts_a_run(engine: Engine) -> None:
    request = engine.request(PROMPT, seed=4, noise="torch", steps=2)
    first = next(each for each in engine.draw([request]) if hasattr(each, "step"))
    own = torch.randn([1, *engine.model.shape(request)], generator=torch.Generator().manual_seed(4))
    assert torch.equal(first.step.x, own * first.step.here.sigma)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers
def test_torch_noise_starts_as_large_as_published_schedulers_start() -> None:
    """Of variance 1 on Stable Diffusion's path, whose noisiest level keeps a little data; less by rules 2."""
    torch.manual_seed(8)
    network = UNet(tiny.UNET)
    path = find("paths", "scaled-linear")()
    engine = Engine(model(denoiser=tiny.lively(Denoiser(network, path, find("predictions", "noise")()))))
    own = torch.randn([1, *engine.model.shape(engine.request(PROMPT))], generator=torch.Generator().manual_seed(4))
    for rules, noise in ((3, "torch"), (2, "torch"), (3, "independent")):
        request = engine.request(PROMPT, seed=4, noise=noise, steps=2, spacing="leading", rules=rules)
        first = next(each for each in engine.draw([request]) if hasattr(each, "step")).step
        theirs = NoiseSource([4], own.shape[1:]).initial() if noise == "independent" else own
        whole = rules == 3 and noise == "torch"
        assert torch.equal(first.x, theirs if whole else theirs * first.here.sigma), (rules, noise)
    assert first.here.sigma < 0.999
    stable = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    diffusers = pytest.importorskip("diffusers")
    for name in ("PNDM", "DDIM", "DPMSolverMultistep", "UniPCMultistep", "LCM"):
        assert float(getattr(diffusers, f"{name}Scheduler").from_config(stable).init_noise_sigma) == 1
    euler = diffusers.EulerDiscreteScheduler.from_config({**stable, "timestep_spacing": "leading"})
    euler.set_timesteps(2)
    assert float(euler.init_noise_sigma) == pytest.approx(1 / first.here.alpha, rel=1e-5), "in x/alpha"


def test_torch_noise_on_the_way_came_with_the_third_rules(engine: Engine) -> None:
    for rules in (3, 2):
        request = engine.request(PROMPT, seed=4, noise="torch", steps=2, solver="lcm", rules=rules)
        shape, generator = engine.model.shape(request), torch.Generator().manual_seed(4)
        _, second = (torch.randn(shape, generator=generator) for _ in range(2))
        step = next(each for each in engine.draw([request]) if hasattr(each, "step")).step
        fresh = (step.run.x - step.there.alpha * step.estimate.x0) / step.there.sigma
        theirs = second if rules == 3 else NoiseSource([4], shape, index=0).between(step.here, step.there)[0]
        assert torch.allclose(fresh[0], theirs, atol=1e-5), rules


def test_a_folder_of_free_parts_opens_and_draws(tmp_path: Path) -> None:
    parts = tiny.components()
    del parts["text"]
    parts |= {"text.a": tower(32, 32, 1), "text.b": tower(32, 20, 2), "weak": weak()}
    layout = {"tokens": [["text.a"], ["text.b"]], "pooled": ["text.b"]}
    texts = {f"{name}.tokenizer.json": tiny.tokenizer(32).json for name in ("text.a", "text.b")}
    info = {"name": "free", "defaults": tiny.DEFAULTS | {"guidance": "autoguidance"}, "layout": layout}
    save_model(tmp_path / "free", parts, info, texts, torch.float32)
    engine = load_engine(tmp_path / "free", "cpu")
    assert list(engine.model.conditioner.towers) == ["text.a", "text.b"]
    assert engine.model.encode([PROMPT]).tokens.shape == (1, 52, 32)
    assert set(engine.model.denoisers) == {"denoiser", "weak"}
    assert engine.request(PROMPT).guidance == "autoguidance(2)"
    assert torch.isfinite(draw(engine, [PROMPT], [1])).all()
    broken = {**info, "layout": {"tokens": [["text.c"]], "pooled": []}}
    save_model(tmp_path / "broken", parts, broken, texts, torch.float32)
    with pytest.raises(UnnoiseError, match=r"text\.c"):
        load_engine(tmp_path / "broken", "cpu")
