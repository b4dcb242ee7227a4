"""``unnoise study``: what a model teaches, one study a command, with a table, curves and a sheet."""

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
    """Study what a model teaches; without a name, list the studies. A study that is stopped goes on where it was.

    Args:
        name: which study; see the list.
        model: a model folder or a finished training; the model that comes with unnoise if left out. The study arms
            takes autoencoder and text tower from it.
        judge: a folder trained by emoji-judge; some studies need none.
        data: the picture set whose captions are drawn.
        part: of the held-out pictures: validation, for choosing, or test, for the final report.
        prompts: about how many, 2 to 1000, in fixed shares of plain things, skin tones and held-out combinations.
        seeds: pictures a prompt where a study wants several, 1 to 16; in arms, trainings of each arm.
        seed: of the first picture, and of the first training.
        steps: solver steps, the model's own if left out; for the study of steps the largest number.
        minutes: that each training of the study arms takes; 10 if left out.
        out: folder for table, curves and sheet; older ones of these names are replaced.
        memory: folder that keeps what was drawn and trained, so that it is done once.
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
    from unnoise.cli.eval import label, load_judge, make_folder, not_kin, typed
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
    chosen = choose(pictures, part, prompts)
    engine = load_engine(model, threads=threads)
    engine.request("", steps=steps)  # refused before any work
    weights = weights_sha256(engine.model.record)
    eyes = model_folder(judge)

    def stranger() -> Judge:
        found = load_judge(eyes)
        not_kin(found, engine, "the model")
        return found

    given = {"data": data} | ({"autoencoder": model, "text": model} if model is not None else {})
    network = next(engine.model.denoiser.parameters())
    lab = Lab(
        engine=engine,
        weights=weights,
        judge=stranger,
        judged_by=lambda: weights_sha256(read_record(eyes)),
        pictures=pictures,
        prompts=chosen,
        seed=seed,
        seeds=seeds,
        steps=steps,
        memory=memory,
        computer=machine(network.device) | {"dtype": str(network.dtype)},
        watch=counted,
        train=Trials(
            given, {"model": weights, "set": pictures.sha256}, 10 if minutes is None else minutes, memory / "arms"
        ),
    )
    make_folder(out)
    lesson = run(lab)
    asked: dict[str, object] = {} if lesson.asked else {"--prompts": prompts, "--part": part}
    asked |= {"--seeds": lesson.seeds, "--seed": seed, "--steps": steps, "--minutes": minutes}
    words = [name] if model is None else [name, label(model)]
    facts = {
        "command": typed("study", words, asked),
        "model": f"{engine.model.record.get('name', '')}, weights {weights[:16]}",
        "prompts": lesson.asked or lab.kinds(),
        "settings": lesson.drawn or lab.told(),
        **({"judge": f"{label(judge)}, weights {lab.judged_by()[:16]}, {lab.verdict()}"} if lab.judged else {}),
        "picture set": pictures.sha256[:16],
    }
    files = write(out, name, lesson, facts)
    if as_json:
        print(json.dumps(record(lesson, facts), ensure_ascii=False))
    else:
        tell("\n".join([*lesson.found, f"written to {files[0]}"]))
