"""Condition, Edit, Space, Draws, the registry and errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

from unnoise.core import registry
from unnoise.core.condition import Condition
from unnoise.core.edit import Edit, apply_edits
from unnoise.core.objective import Draws
from unnoise.core.space import Space
from unnoise.errors import UnnoiseError


def a_condition(rows: int = 2, offset: float = 0.0) -> Condition:
    return Condition(
        tokens=torch.arange(rows * 6.0).reshape(rows, 3, 2) + offset,
        token_mask=torch.ones(rows, 3, dtype=torch.bool),
        class_id=torch.arange(rows),
    )


def test_condition_rows_cat_repeat_and_move() -> None:
    one, two = a_condition(2), a_condition(1, 100.0)
    joined = Condition.cat([one, two])
    assert joined.tokens is not None
    assert joined.tokens.shape == (3, 3, 2)
    assert joined.pooled is None
    back = joined.rows(slice(2, 3))
    assert two.tokens is not None
    assert back.tokens is not None
    assert torch.equal(back.tokens, two.tokens)
    many = two.repeat(4)
    assert many.class_id is not None
    assert many.class_id.tolist() == [0, 0, 0, 0]
    half = one.to(dtype=torch.float16)
    assert half.tokens is not None
    assert half.class_id is not None
    assert half.token_mask is not None
    assert (half.tokens.dtype, half.class_id.dtype, half.token_mask.dtype) == (torch.float16, torch.int64, torch.bool)
    with pytest.raises(ValueError, match="pooled"):
        Condition.cat([one, replace(one, pooled=torch.zeros(2, 1))])
    with pytest.raises(FrozenInstanceError):
        one.tokens = None


def test_conditions_of_different_lengths_join_padded_and_masked() -> None:
    short, long = Condition(torch.ones(1, 2, 3)), Condition(torch.full((2, 4, 3), 2.0))
    joined = Condition.cat([short, long])
    assert joined.tokens is not None
    assert joined.token_mask is not None
    assert joined.token_mask.tolist() == [[True, True, False, False], [True] * 4, [True] * 4]
    assert torch.equal(joined.tokens[0, :2], torch.ones(2, 3))
    assert not joined.tokens[0, 2:].any()
    masked = replace(long, token_mask=torch.arange(4) < torch.tensor([[1], [3]]))
    again = Condition.cat([masked, short]).token_mask
    assert again is not None
    assert again.sum(1).tolist() == [1, 3, 2], "a mask of its own is kept"
    beside = Condition.cat([masked, long]).token_mask
    assert beside is not None
    assert beside.sum(1).tolist() == [1, 3, 4, 4]


def test_conditions_of_one_length_join_as_they_are() -> None:
    one, two = Condition(torch.ones(1, 2, 3)), Condition(torch.zeros(1, 2, 3), pooled=None)
    joined = Condition.cat([one, two])
    assert joined.token_mask is None, "nothing is padded, so nothing is masked"
    assert joined.count == 2


def test_each_field_says_how_its_rows_are_joined() -> None:
    tokens = torch.ones(1, 2, 3)
    mixed = Condition.cat([Condition(tokens), Condition(tokens, concat=torch.ones(1, 4, 5, 5))])
    assert mixed.concat is not None
    assert not mixed.concat[0].any()
    assert mixed.concat[1].all()
    for lacking in ("tokens", "pooled", "class_id", "numbers", "scale", "other_tokens"):
        value = torch.ones(1, 2, 3) if "tokens" in lacking else torch.ones(1)
        with pytest.raises(ValueError, match=f"only some have {lacking}"):
            Condition.cat([Condition(concat=tokens), Condition(concat=tokens, **{lacking: value})])
    with pytest.raises(ValueError, match=r"tokens of \(3,\) and \(5,\)"):
        Condition.cat([Condition(tokens), Condition(torch.ones(1, 2, 5))])
    with pytest.raises(ValueError, match="no number of rows"):
        Condition.cat([Condition(concat=tokens), Condition()])
    assert all(field.metadata["join"] in ("pad", "mask", "stack", "zeros") for field in fields(Condition))


def test_numbers_of_a_condition_are_never_rounded() -> None:
    """1023 and 7.3 are none of bfloat16's numbers."""
    sizes, scale = torch.tensor([[1023.0, 511.0]]), torch.tensor([7.3])
    cond = Condition(torch.full((1, 2, 3), 7.3), numbers=sizes, scale=scale).to("cpu", torch.bfloat16)
    assert cond.numbers is not None
    assert cond.scale is not None
    assert cond.tokens is not None
    assert torch.equal(cond.numbers, sizes)
    assert torch.equal(cond.scale, scale)
    assert cond.tokens.dtype == torch.bfloat16
    assert cond.to(device="meta").numbers.device.type == "meta"  # type: ignore[union-attr]
    joined = Condition.cat([cond, cond])
    assert torch.equal(joined.rows(slice(1, 2)).numbers, sizes)  # type: ignore[arg-type]


def test_a_fresh_edit_is_the_identity_and_sites_match() -> None:
    value = torch.ones(2)
    edit = Edit(("down.0.res.1", "mid.*"))
    assert apply_edits([edit], "mid.attention", value) is value
    assert edit.at("down.0.res.1")
    assert edit.at("mid.res.0")
    assert not edit.at("down.0.res.10")
    assert not Edit().at("mid")


def test_space_knows_its_shape() -> None:
    assert Space(4, stride=8).shape(64) == (4, 8, 8)
    assert Space(1, dims=1).shape(5) == (1, 5)
    assert Space(4, stride=8).shape((160, 96)) == (4, 12, 20), "width first, and rows before columns in the state"
    assert Space(4, stride=(4, 8)).shape((160, 96)) == (4, 12, 40)
    film = Space(16, dims=3, stride=(8, 8, 4), media="film")
    assert film.shape((160, 96, 24)) == (16, 6, 12, 20)
    assert Space(4).media == "picture"


def test_a_size_that_does_not_go_is_refused_with_what_does() -> None:
    space = Space(4, stride=8)
    for size, what in (
        (0, "size 0 is out of range"),
        (-8, "out of range"),
        (True, "no whole number"),
        ("64", "no whole number"),
        (60, "size 60 is no multiple of 8; choose 56 or 64"),
        (5, "choose 8$"),
        ((64, 60), "height 60 is no multiple of 8; choose 56 or 64"),
        ((60, 64), "width 60"),
        ((64, 64, 64), r"picture has 2 numbers, not 3; give one, or \(width, height\)"),
        ((), "has 2 numbers, not 0"),
    ):
        with pytest.raises(UnnoiseError, match=what):
            space.shape(size)  # type: ignore[arg-type]
    assert space.shape(48, multiple=2) == (4, 6, 6)
    with pytest.raises(UnnoiseError, match="width 40 is no multiple of 16; choose 32 or 48"):
        space.shape((40, 48), multiple=2)
    with pytest.raises(ValueError, match="does not go with 2 axes"):
        Space(4, stride=(8, 8, 8)).shape(64)


def test_training_draws_do_not_depend_on_how_a_batch_is_cut() -> None:
    """Whatever the micro-batches or machines, sample 5 of step 3 sees the same noise, time and choice."""
    whole = Draws(seed=1, step=3, batch=8, rows=slice(None))
    parts = [Draws(1, 3, 8, slice(i, i + 2)) for i in range(0, 8, 2)]
    for draw in (
        lambda d: d.normal("eps", 2, 2),
        lambda d: d.uniform("time"),
        lambda d: d.integers("crop", 7, 2),
    ):
        assert torch.equal(draw(whole), torch.cat([draw(part) for part in parts]))
        assert torch.equal(draw(whole), draw(whole)), "asked again, it is the same"
    eps = whole.normal("eps", 1000)
    for other in (whole.normal("other", 1000), Draws(2, 3, 8, slice(None)).normal("eps", 1000)):
        assert not torch.equal(eps, other)
    assert not torch.equal(eps, Draws(1, 4, 8, slice(None)).normal("eps", 1000))
    assert eps.dtype == torch.float32
    assert whole.uniform("time").dtype == torch.float64


def test_the_index_needs_neither_torch_nor_the_methods() -> None:
    """``--help`` lists every method in an instant."""
    code = (
        "import sys; from unnoise.core.registry import KINDS, index\n"
        "names = [name for kind in KINDS for name in index(kind)]\n"
        "assert 'ddim' in names and 'flow' in names, names\n"
        "assert 'torch' not in sys.modules and 'unnoise.solvers.ddim' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_find_tells_what_was_meant() -> None:
    assert registry.find("solvers", "dpm++ 2m") is registry.find("solvers", "dpmpp-2m")
    with pytest.raises(UnnoiseError, match=r"no solver is called 'dimm'; did you mean .*ddim"):
        registry.find("solvers", "dimm")
    with pytest.raises(UnnoiseError, match="one of: "):
        registry.find("solvers", "?")
    with pytest.raises(UnnoiseError, match="no kind"):
        registry.index("schedulers")


def test_an_error_is_one_line() -> None:
    error = UnnoiseError("no checkpoint\n at runs/a", "name  a folder")
    assert str(error) == "no checkpoint at runs/a; name a folder"
    assert str(UnnoiseError("no network")) == "no network"
