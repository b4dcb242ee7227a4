"""Guidance against diffusers' guiders: 1e-5 where the two mean the same, and what sets them apart where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import guiders
from diffusers.guiders import adaptive_projected_guidance as their_apg
from diffusers.guiders import classifier_free_zero_star_guidance as their_zero

from laws.test_guidance_truth import HERE, dot, parts
from unnoise.guidances.apg import APG
from unnoise.guidances.autoguidance import AutoGuidance
from unnoise.guidances.cfg_zero import CFGZero
from unnoise.guidances.pag import PAG
from unnoise.guidances.plain import Plain

CLOSE = 1e-5


@pytest.mark.parametrize(("eta", "momentum", "cap"), [(0.0, -0.5, math.inf), (0.3, 0.7, 2.0), (1.0, -0.75, 0.5)])
def test_apg_is_diffusers_with_the_paper_s_base(eta: float, momentum: float, cap: float) -> None:
    """Five steps, with the buffer on their side and the memory on ours."""
    buffer, memory = their_apg.MomentumBuffer(momentum), None
    for step in range(5):
        x, told = parts(step)
        ours, memory = APG(6.0, eta, momentum, cap).combine(told, x, HERE, memory)
        c, u = (told[name].x0.float() for name in ("cond", "uncond"))
        theirs = their_apg.normalized_guidance(c, u, 5.0, buffer, eta, 0.0 if cap == math.inf else cap, True)
        assert (theirs - ours.x0).abs().max() < CLOSE * (1 + ours.x0.abs().max())


def test_difference_apg_base() -> None:
    """Their default counts from D_u: at eta < 1 it lacks (1 - eta) of the parallel part, whatever the scale."""
    x, told = parts()
    c, u, eta = told["cond"].x0, told["uncond"].x0, 0.25
    along = dot(c - u, c) / dot(c, c) * c
    for scale in (1.5, 7.0):
        ours, _ = APG(scale, eta, momentum=0.0).combine(told, x, HERE, None)
        theirs = their_apg.normalized_guidance(c, u, scale, None, eta)
        assert torch.allclose(theirs - ours.x0, -(1 - eta) * along, rtol=0, atol=1e-10)


def test_cfg_zero_is_diffusers_on_velocities() -> None:
    """Flow prediction, one zero step, then four: theirs counts steps on itself, ours in the memory."""
    guider = their_zero.ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=1)
    memory = None
    for step in range(5):
        x, told = parts(step)
        ours, memory = CFGZero(4.0, zero_steps=1).combine(told, x, HERE, memory)
        guider.set_state(step, 5, None)
        c, u = ((told[name].eps - told[name].x0).float() for name in ("cond", "uncond"))
        theirs = guider.forward(c, u).pred
        assert (theirs - (ours.eps - ours.x0)).abs().max() < CLOSE * (1 + theirs.abs().max())


def test_difference_cfg_zero_space() -> None:
    """Theirs projects whatever the network says: eps here. Of one network in two predictions it makes two pictures."""
    x, told = parts()
    ours, _ = CFGZero(4.0, zero_steps=0).combine(told, x, HERE, None)
    s = their_zero.cfg_zero_star_scale(told["cond"].eps.flatten(1), told["uncond"].eps.flatten(1))[..., None, None]
    base = s * told["uncond"].eps
    theirs = base + 4.0 * (told["cond"].eps - base)
    assert (theirs - ours.eps).abs().max() > 0.1


def test_difference_autoguidance() -> None:
    """What diffusers calls so drops layers of the run's own network; the formula is one, the weak network another."""
    with pytest.raises(ValueError, match="auto_guidance"):
        guiders.AutoGuidance()
    theirs = guiders.AutoGuidance(guidance_scale=2.5, auto_guidance_layers=[0], dropout=0.1)
    x, told = parts()
    ours, _ = AutoGuidance(2.5).combine({"cond": told["cond"], "weak": told["uncond"]}, x, HERE, None)
    pred = theirs.forward(told["cond"].x0, told["uncond"].x0).pred
    assert torch.allclose(pred, ours.x0, rtol=0, atol=1e-12)


def test_difference_pag_alone() -> None:
    """Without CFG their PAG counts from the perturbed call, its scale is one less then; ours is what it is."""
    guider = guiders.PerturbedAttentionGuidance(
        guidance_scale=1.0, perturbed_guidance_scale=3.0, perturbed_guidance_start=0.0, perturbed_guidance_stop=1.0,
        perturbed_guidance_layers=[0],
    )  # fmt: skip
    guider.set_state(1, 10, None)
    x, told = parts()
    c, p = told["cond"], told["uncond"]
    guidance = PAG(Plain(), 3.0)
    ours, _ = guidance.combine({"cond": c, str(guidance.edit): p}, x, HERE, None)
    theirs = guider.forward(pred_cond=c.x0, pred_cond_skip=p.x0).pred
    assert torch.allclose(ours.x0, c.x0 + 3 * (c.x0 - p.x0), rtol=0, atol=1e-12)
    assert torch.allclose(theirs, c.x0 + 2 * (c.x0 - p.x0), rtol=0, atol=1e-12)
