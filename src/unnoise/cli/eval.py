"""``unnoise eval``: compares models on the same prompts, under a judge that shares nothing with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from unnoise.core import checks
from unnoise.errors import UnnoiseError
from unnoise.notes import tell

if TYPE_CHECKING:
    from torch import Tensor

    from unnoise.engine.engine import Engine
    from unnoise.study.judge import Exam, Judge
    from unnoise.study.leaderboard import Row

MAX_SHOWN, COLUMNS = 60, 10  # pictures of a sheet, and how many of them stand in a row


def evaluate(
    checkpoints: tyro.conf.Positional[tuple[Path, ...]],
    judge: Path = Path("runs/emoji-judge"),
    data: Path = Path("data/emoji"),
    part: Literal["validation", "test"] = "validation",
    prompts: int = 100,
    seeds: int = 1,
    seed: int = 0,
    steps: int | None = None,
    out: Path = Path("docs/leaderboard"),
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Judge models on trained and held-out prompts, with a ceiling, a floor and a memoriser; writes the leaderboard.

    Args:
        checkpoints: model folders, folders of finished trainings, or "default".
        judge: a folder trained by emoji-judge.
        data: the picture set.
        part: validation, for choosing, or test, for the final report.
        prompts: number of prompts of each tier, 2 to 1000.
        seeds: pictures a prompt; two or more give the figure "variety".
        seed: seed of the first picture, of the bootstrap and of the memoriser.
        steps: solver steps; by default the model's own.
        out: folder for the table, the plots and the contact sheets; older ones of these names are replaced.
        as_json: print the leaderboard as JSON.
    """
    from unnoise.data.store import open_set
    from unnoise.engine.load import model_folder
    from unnoise.engine.metadata import weights_sha256
    from unnoise.study.judge import examine
    from unnoise.study.lab import settings_line
    from unnoise.study.leaderboard import Board, choose_prompts
    from unnoise.weights.record import read_record

    checks.whole("--prompts", prompts, 2, 1000)
    checks.whole("--seeds", seeds, 1, 16)
    checks.seed("--seed", seed, prompts * seeds)
    pictures = open_set(data)
    selection = choose_prompts(pictures, part, prompts)
    captions = [pictures.captions[item][0] for item in selection.items]
    folder = model_folder(judge)
    eyes = load_judge(folder)
    models = load_models(checkpoints, eyes, captions, steps)
    make_folder(out)
    board = Board(eyes, pictures, selection, seed)
    exam = examine(eyes, pictures, board.candidates, board.captions)
    name, engine = next(iter(models.items()))
    controls, copies = board.controls(engine.model.autoencoder, name)
    rows = [board.row(name, draw(name, model, captions, seeds, seed, steps), copies) for name, model in models.items()]
    options = {"--prompts": prompts, "--seeds": seeds, "--seed": seed, "--part": part, "--steps": steps}
    facts = {
        "command": command_line("eval", map(label, checkpoints), options),
        "weights": ", ".join(f"{name} {weights_sha256(model.model.record)[:16]}" for name, model in models.items()),
        **{f"settings of {name}": settings_line(model.request("", steps=steps)) for name, model in models.items()},
        "judge": f"{label(judge)}, weights {weights_sha256(read_record(folder))[:16]}, {verdict(exam)}",
        "prompts": ", ".join(f"{len(selection.rows(tier))} {tier}" for tier in dict.fromkeys(selection.tiers))
        + f" ({part})",
        "seeds": f"{seeds} a prompt, from {seed}",
        "picture set": pictures.sha256,
        "candidates": board.candidates.digest(selection.items),
    }
    record = {"facts": facts, "exam": exam._asdict() | {"passed": exam.passed}, "rows": _plain([*rows, *controls])}
    write(out, [*rows, *controls], captions, facts, record)
    if as_json:
        print(json.dumps(record, ensure_ascii=False))
    else:
        tell(f"{verdict(exam)}\nwritten to {out}")


def load_models(
    checkpoints: Sequence[Path], judge: Judge, captions: Sequence[str], steps: int | None
) -> dict[str, Engine]:
    """The models by the names of their rows. Any reason to refuse one is reported before the first picture is drawn.

    Raises:
        UnnoiseError: none is named, one is no model, cannot read a prompt or take the steps, or is kin to the judge.
    """
    from unnoise.engine.load import load_engine, model_folder

    if not checkpoints:
        raise UnnoiseError("no model is named", "name one or more, or `default`")
    models = {}
    for name, path in zip(distinct([label(path) for path in checkpoints]), checkpoints, strict=True):
        engine = load_engine(model_folder(path))
        not_kin(judge, engine, name)
        for caption in captions:
            engine.model.check(engine.request(caption, steps=steps))
        models[name] = engine
    return models


def load_judge(folder: Path) -> Judge:
    """The judge of a model folder.

    Raises:
        UnnoiseError: it holds no contrastive pair.
    """
    from unnoise.engine.load import read_tokenizer
    from unnoise.study.judge import Judge
    from unnoise.weights.model import load_model

    parts, record = load_model(folder, ("text", "image", "pair"))
    return Judge(parts["text"], parts["image"], parts["pair"], read_tokenizer(folder, record, parts["text"]))


def not_kin(judge: Judge, engine: Engine, name: str) -> None:
    """Ensures that a judge and a model were not trained together.

    Raises:
        UnnoiseError: they share a tokenizer.
    """
    if any(tower.tokenizer.json == judge.tokenizer.json for tower in engine.model.conditioner.towers.values()):
        raise UnnoiseError(f"the judge and {name} share a tokenizer", "train a separate judge with emoji-judge")


def draw(name: str, engine: Engine, captions: Sequence[str], seeds: int, seed: int, steps: int | None) -> Tensor:
    """uint8 (seeds, prompts, 3, H, W); the prompt of row i has the seeds seed + i + k * prompts."""
    import torch

    from unnoise.cli.progress import counted

    def batch(start: int, turn: int) -> Tensor:
        rows = range(start, min(start + 16, len(captions)))
        numbers = [seed + turn * len(captions) + row for row in rows]
        seeded = zip(rows, numbers, strict=True)
        return engine.pixels([engine.request(captions[row], seed=number, steps=steps) for row, number in seeded])

    places = [(start, turn) for turn in range(seeds) for start in range(0, len(captions), 16)]
    pixels = torch.cat([batch(*place) for place in counted(f"batches of {name}", places)])
    return pixels.reshape(seeds, len(captions), *pixels.shape[1:])


def verdict(exam: Exam) -> str:
    """The judge's results on real pictures, and whether its figures can be trusted."""
    shares = ", ".join(f"{name} {share:.1%}" for name, share in exam.by_attribute.items())
    return (
        f"{'passed' if exam.passed else 'FAILED'} its exam: right caption first for {exam.first:.1%} of "
        f"{exam.pictures} real pictures, {exam.caught:.1%} of {exam.swaps} swapped captions caught "
        f"({shares or 'none to swap'})"
    )


def command_line(verb: str, words: Iterable[str], options: Mapping[str, object]) -> str:
    """The command and the date for a page: with the options that were set, and names in place of paths."""
    values = {option: value for option, value in options.items() if value is not None}
    arguments = [f"{option} {f'{value:g}' if isinstance(value, float) else value}" for option, value in values.items()]
    return f"`{' '.join(['unnoise', verb, *words, *arguments])}`, {date.today()}"


def label(path: Path) -> str:
    """A model's name on the leaderboard: its folder's name, never a path."""
    path = path.absolute()
    return path.parent.name if path.name == "model" else path.name


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with numbers where two are equal."""
    numbered: list[str] = []
    for name in names:
        again = names[: len(numbered)].count(name)
        numbered.append(f"{name} ({again + 1})" if again else name)
    return numbered


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {"name": row.name, "figures": {name: value and value._asdict() for name, value in row.figures.items()}}
        for row in rows
    ]


def make_folder(out: Path) -> None:
    """Creates a folder if there is none.

    Raises:
        UnnoiseError: it cannot be made.
    """
    from unnoise.files import explain

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, out) from None


def write(
    out: Path, rows: Sequence[Row], captions: Sequence[str], facts: dict[str, str], record: dict[str, Any]
) -> None:
    """Writes the table, its numbers, a plot for each column and a contact sheet for each row, prompts in one order.

    Raises:
        UnnoiseError: the folder cannot be written.
    """
    import io

    from unnoise.files import json_bytes, write_whole
    from unnoise.pictures import sheet
    from unnoise.study.leaderboard import columns_of, markdown, plot

    places = list(dict.fromkeys(place * len(captions) // MAX_SHOWN for place in range(MAX_SHOWN)))
    write_whole(out / "leaderboard.md", markdown(rows, facts, [captions[place] for place in places]).encode())
    write_whole(out / "leaderboard.json", json_bytes(record))
    for name in columns_of(rows):
        write_whole(out / f"{name.lower()}.svg", plot(rows, name).encode())
    for number, row in enumerate(rows, 1):
        file = io.BytesIO()
        sheet(row.pictures[places], columns=COLUMNS).quantize(256, kmeans=2).save(file, "PNG", optimize=True)
        write_whole(out / f"sheet-{number}.png", file.getvalue())
