"""``unnoise measure``: figures for a model's parts on held-out pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from unnoise.core import checks
from unnoise.errors import UnnoiseError


def measure(
    model: tyro.conf.Positional[Path | None] = None,
    data: Path = Path("data/emoji"),
    part: Literal["validation", "test"] = "validation",
    sheet: Path | None = None,
    judge: Path | None = None,
    prompts: int = 100,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Measure a model's parts on pictures that it was not trained on.

    The autoencoder's PSNR, the contrastive pair's recall@10, and the denoiser's error at nine noise levels, for those
    of the parts that the model folder contains.

    Args:
        model: a model folder or a finished training; by default the model that comes with unnoise.
        data: the picture set.
        part: validation, for choosing, or test, for the final report.
        sheet: a PNG file to write with the ten worst reconstructions, original and result side by side.
        judge: a model folder with a contrastive pair; it judges pictures that the model draws for trained captions.
        prompts: number of pictures to draw for the judge.
        as_json: print the figures as JSON.
    """
    from unnoise.data.store import open_set
    from unnoise.engine.load import default_model, model_folder, read_tokenizer
    from unnoise.recipes.latent import check_size
    from unnoise.study import measure as study
    from unnoise.weights.model import load_model
    from unnoise.weights.record import read_record

    checks.whole("--prompts", prompts, 2, 1000)
    folder = model_folder(model) if model else default_model()
    parts = list(read_record(folder)["parts"])
    pictures = open_set(data)
    if "denoiser" in parts:
        check_size(pictures)
    modules, record = load_model(folder, parts)
    tiers = {tier: pictures.held_out(tier, part) for tier in ("autoencoder", "tier1", "tier2")}
    held_out = [item for items in tiers.values() for item in items]
    if not held_out:
        raise UnnoiseError(f"{data} has no held-out pictures of the part {part}", "name another set, or another --part")
    figures: dict[str, Any] = {"model": str(folder), "part": part, "pictures": len(held_out)}
    tokenizer = read_tokenizer(folder, record, modules["text"]) if "text" in modules else None
    if "autoencoder" in modules:
        result = study.reconstruction(modules["autoencoder"], pictures, held_out)  # type: ignore[arg-type]
        worst = [{"caption": pictures.captions[i][0], "psnr": round(db, 2)} for i, db in result.worst()]
        figures["autoencoder"] = {
            "psnr_mean": round(float(result.psnr.mean()), 2),
            "psnr_p10": round(float(result.psnr.quantile(0.1)), 2),
            "worst": worst,
        }
        if sheet is not None:
            _worst_sheet(modules["autoencoder"], pictures, [i for i, _ in result.worst()], sheet)
    unseen = tiers["tier1"] + tiers["tier2"]
    if unseen and tokenizer is not None and "image" in modules and "pair" in modules:
        recall = study.retrieval(modules["text"], modules["image"], modules["pair"], tokenizer, pictures, unseen)
        figures["retrieval"] = recall._asdict()
    if unseen and tokenizer is not None and {"denoiser", "autoencoder"} <= modules.keys():
        errors = study.noise_error(
            modules["denoiser"],  # type: ignore[arg-type]
            modules["text"],
            modules["autoencoder"],  # type: ignore[arg-type]
            tokenizer,
            pictures,
            unseen,
        )
        figures["noise_error"] = {f"{level:g}": round(value, 4) for level, value in errors.items()}
    if judge is not None:
        figures["adherence"] = _adherence(folder, model_folder(judge), pictures, prompts)
    print(json.dumps(figures, ensure_ascii=False) if as_json else text_of(figures))


def text_of(figures: dict[str, Any]) -> str:
    """The figures, for reading."""
    lines = [f"{figures['model']}: {figures['pictures']} held-out pictures ({figures['part']})"]
    if "autoencoder" in figures:
        auto = figures["autoencoder"]
        lines.append(f"autoencoder: PSNR mean {auto['psnr_mean']} dB, p10 {auto['psnr_p10']} dB; the worst:")
        lines += [f"  {row['psnr']:6.2f} dB  {row['caption']}" for row in auto["worst"]]
    if "retrieval" in figures:
        recall = figures["retrieval"]
        lines.append(
            f"contrastive pair: recall@{recall['k']} among {recall['candidates']}: pictures by caption "
            f"{recall['by_caption']:.1%}, captions by picture {recall['by_picture']:.1%}"
        )
    if "noise_error" in figures:
        lines.append("denoiser: squared error of the noise by log-SNR, noise to data:")
        lines.append("  " + "  ".join(f"{level}: {value:.4f}" for level, value in figures["noise_error"].items()))
    if "adherence" in figures:
        scores = figures["adherence"]
        lines.append(
            f"drawn pictures: own prompt first among {scores['candidates']} in {scores['first']:.1%}, similarity "
            f"{scores['similarity']:.3f}, {scores['seconds']} s"
        )
    return "\n".join(lines)


def _adherence(folder: Path, judge: Path, pictures: Any, count: int) -> dict[str, Any]:
    """Draws one picture for each of ``count`` trained things without a skin tone, evenly spread over the set."""
    import time

    from unnoise.engine.load import load_engine, read_tokenizer
    from unnoise.pictures import from_bytes
    from unnoise.study.measure import adherence
    from unnoise.weights.model import load_model

    trained = pictures.select("denoiser")
    plain = [i for i in trained if not pictures.attributes[i].get("tones")] or trained
    items = [plain[place * len(plain) // count] for place in range(count)]
    engine, started = load_engine(folder), time.perf_counter()
    captions = list(dict.fromkeys(engine.model.tower.tokenizer.cut(pictures.captions[i][0]) for i in items))
    requests = [engine.request(caption, seed=place) for place, caption in enumerate(captions)]
    drawings = from_bytes(engine.pixels(requests))
    seconds = round(time.perf_counter() - started, 1)
    parts, record = load_model(judge, ("text", "image", "pair"))
    tokenizer = read_tokenizer(judge, record, parts["text"])
    figures = adherence(drawings, captions, parts["text"], parts["image"], parts["pair"], tokenizer)
    return {**figures._asdict(), "seconds": seconds}


def _worst_sheet(autoencoder: Any, pictures: Any, items: list[int], path: Path) -> None:
    import torch

    from unnoise.files import explain
    from unnoise.pictures import from_bytes, sheet, to_bytes

    original = pictures.pictures(items)
    with torch.inference_mode():
        again = to_bytes(autoencoder.decode(autoencoder.encode(from_bytes(original)).mean))
    try:
        sheet(torch.stack([original, again], dim=1).flatten(0, 1), columns=4).save(path)
    except (OSError, ValueError) as error:
        raise explain(OSError(getattr(error, "errno", None), str(error)), path) from None
