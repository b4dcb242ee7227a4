"""``unnoise study``: studies a model, one study a command, with a table, curves and a sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unnoise.core import checks
from unnoise.notes import tell

if TYPE_CHECKING:
    from unnoise.study.judge import Judge


def study(
    name: Annotated[str, tyro.conf.Positional] = "",
    model: tyro.conf.Positional[Path | None] = None,
    judge: Path = Path("runs/emoji-judge"),
    data: Path = Path("data/emoji"),
    part: Literal["validation", "test"] = "validation",
    prompts: int = 128,
    seeds: int = 2,
    seed: int = 0,
    steps: int | None = None,
    minutes: float | None = None,
    out: Path = Path("docs/studies"),
    memory: Path = Path("runs/studies"),
    threads: int | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Study a model; without a name, list the studies. A stopped study resumes where it was.

    Args:
        name: the study's name; see the list.
        model: a model folder or a finished training; by default the model that comes with unnoise. The study arms
            takes autoencoder and text tower from it.
        judge: a folder trained by emoji-judge; some studies need none.
        data: the picture set whose captions are drawn.
        part: part of the held-out pictures: validation, for choosing, or test, for the final report.
        prompts: approximate number, 2 to 1000, in fixed shares of plain things, skin tones and held-out combinations.
        seeds: pictures a prompt in studies that need several, 1 to 16; in arms, trainings of each arm.
        seed: seed of the first picture, and of the first training.
        steps: solver steps, by default the model's own; for the study of steps the largest number.
        minutes: minutes of each training of the study arms; by default 10.
        out: folder for table, curves and sheet; older ones of these names are replaced.
        memory: folder for drawings and trainings, so that each is done once.
        threads: processor threads.
        as_json: print the figures as JSON.
    """
    from unnoise.study.lessons import find, studies

    if not name:
        print("\n".join(f"{each:<12} {about}" for each, about in studies().items()))
        return
    run = find(name)
    checks.whole("--prompts", prompts, 2, 1000)
    checks.whole("--seeds", seeds, 1, 16)
    checks.seed("--seed", seed, prompts * seeds)
    from unnoise.cli.eval import command_line, label, load_judge, make_folder, not_kin
    from unnoise.cli.progress import counted
    from unnoise.cli.trials import Trials
    from unnoise.data.store import open_set
    from unnoise.engine.load import load_engine, model_folder
    from unnoise.engine.metadata import weights_sha256
    from unnoise.study.lab import Lab
    from unnoise.study.page import record, write
    from unnoise.study.prompts import choose
    from unnoise.training.identity import machine
    from unnoise.weights.record import read_record

    pictures = open_set(data)
    selection = choose(pictures, part, prompts)
    engine = load_engine(model, threads=threads)
    engine.request("", steps=steps)  # refused before any work
    weights = weights_sha256(engine.model.record)
    eyes = model_folder(judge)

    def stranger() -> Judge:
        own_judge = load_judge(eyes)
        not_kin(own_judge, engine, "the model")
        return own_judge

    inputs = {"data": data} | ({"autoencoder": model, "text": model} if model is not None else {})
    network = next(engine.model.denoiser.parameters())
    lab = Lab(
        engine=engine,
        weights=weights,
        judge=stranger,
        judged_by=lambda: weights_sha256(read_record(eyes)),
        pictures=pictures,
        prompts=selection,
        seed=seed,
        seeds=seeds,
        steps=steps,
        memory=memory,
        computer=machine(network.device) | {"dtype": str(network.dtype)},
        watch=counted,
        train=Trials(
            inputs, {"model": weights, "set": pictures.sha256}, 10 if minutes is None else minutes, memory / "arms"
        ),
    )
    make_folder(out)
    lesson = run(lab)
    options: dict[str, object] = {} if lesson.prompts else {"--prompts": prompts, "--part": part}
    options |= {"--seeds": lesson.seeds, "--seed": seed, "--steps": steps, "--minutes": minutes}
    words = [name] if model is None else [name, label(model)]
    facts = {
        "command": command_line("study", words, options),
        "model": f"{engine.model.record.get('name', '')}, weights {weights[:16]}",
        "prompts": lesson.prompts or lab.kinds(),
        "settings": lesson.settings or lab.settings_line(),
        **({"judge": f"{label(judge)}, weights {lab.judged_by()[:16]}, {lab.verdict()}"} if lab.judged else {}),
        "picture set": pictures.sha256[:16],
    }
    files = write(out, name, lesson, facts)
    if as_json:
        print(json.dumps(record(lesson, facts), ensure_ascii=False))
    else:
        tell("\n".join([*lesson.sentences, f"written to {files[0]}"]))
