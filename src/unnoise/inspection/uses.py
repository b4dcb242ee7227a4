"""JSON files that use models: workflows, settings, data sets, our own records, and servers' errors saved as files.

Each function looks at a value and answers, or answers None where it is nothing of its kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unnoise.inspection.answer import JSON, MAX_NAMES, Answer, names

ERRORS = ("error", "message", "detail", "errors", "msg")


def server_error(value: Any, path: Path) -> Answer | None:
    """A server's answer to a request that failed, saved as a file."""
    if not isinstance(value, dict) or not 1 <= len(value) <= 6:
        return None
    message = next((value[key] for key in ERRORS if value.get(key)), None)
    keys = {*ERRORS, "status", "statusCode", "code", "success", "type", "path", "timestamp", "request_id", "requestId"}
    if message is None or not set(value) <= keys:
        return None
    fault = f"it is a server's answer to a request that failed: {str(message)[:200]}"
    return Answer(
        "a server's error message", JSON, {}, "", fault, "download it again, logged in if its site asks for that"
    )


def unnoises(value: Any, path: Path) -> Answer | None:
    """Our own records."""
    if not isinstance(value, dict):
        return None
    parts = value.get("parts", value.get("components"))  # as today's format calls them, and as the first did
    if isinstance(parts, dict) and isinstance(value.get("files"), dict):
        facts = {"format": value.get("format"), "parts": names(parts)}
        return Answer("the record of an unnoise model", JSON, facts)
    if isinstance(value.get("recipe"), str) and "arguments" in value:
        return Answer("the record of an unnoise training", JSON, {"recipe": value["recipe"][:80]})
    return None


def workflow(value: Any, path: Path) -> Answer | None:
    """A workflow of ComfyUI or InvokeAI, or settings for an interface for programs."""
    if (
        isinstance(value, dict)
        and isinstance(value.get("nodes"), list)
        and ("links" in value or "last_node_id" in value)
    ):
        kinds = [str(n.get("type")) for n in value["nodes"] if isinstance(n, dict)]
        return Answer(
            "a workflow of ComfyUI, as its canvas saves it",
            JSON,
            {"nodes": len(kinds), "kinds": names(sorted(set(kinds)), 40)},
        )
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(n, dict) and "class_type" in n and "inputs" in n for n in value.values())
    ):
        kinds = [str(n["class_type"]) for n in value.values()]
        return Answer(
            "a workflow of ComfyUI, as its interface for programs takes it",
            JSON,
            {"nodes": len(kinds), "kinds": names(sorted(set(kinds)), 40)},
        )
    if isinstance(value, dict) and isinstance(value.get("nodes"), list) and isinstance(value.get("edges"), list):
        return Answer("a workflow of InvokeAI", JSON, {"nodes": len(value["nodes"])})
    settings = value.get("generate") if isinstance(value, dict) else None
    settings = settings if isinstance(settings, dict) else value
    if (
        isinstance(settings, dict)
        and isinstance(settings.get("prompt"), str)
        and {"steps", "cfg_scale", "negative_prompt", "sampler_name", "sampler_index"} & set(settings)
    ):
        facts = {
            key: settings[key]
            for key in ("prompt", "negative_prompt", "steps", "cfg_scale", "sampler_name", "width", "height", "seed")
            if key in settings
        }
        return Answer("settings for AUTOMATIC1111's or SD.Next's interface for programs", JSON, facts)
    return None


def data_set(value: Any, path: Path) -> Answer | None:
    """Captions of a picture set, or the settings of a training."""
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(v, dict) and {"caption", "tags", "train_resolution"} & set(v) for v in value.values())
    ):
        captions = sum(1 for each in value.values() if each.get("caption") or each.get("tags"))
        note = (
            "its pictures are named by Windows paths; rename the keys before it is used elsewhere"
            if any("\\" in k for k in value)
            else ""
        )
        return Answer(
            "captions of a picture set, kohya's layout for fine-tuning",
            JSON,
            {"pictures": len(value), "captions": captions},
            note,
        )
    rows = value if isinstance(value, list) else []
    if rows and all(isinstance(row, dict) and "id" in row and {"type", "dataset_type"} & set(row) for row in rows):
        facts = {
            str(row["id"])[:60]: f"{row.get('dataset_type', 'image')}, {row.get('type', '?')}"
            for row in rows[:MAX_NAMES]
        }
        return Answer("the data sets of a training by SimpleTuner", JSON, facts)
    if isinstance(value, dict) and isinstance(value.get("training_method"), str) and "model_type" in value:
        keys = (
            "model_type",
            "training_method",
            "base_model_name",
            "resolution",
            "batch_size",
            "learning_rate",
            "output_model_format",
        )
        return Answer(
            "the settings of a training by OneTrainer", JSON, {key: value[key] for key in keys if key in value}
        )
    if rows and all(isinstance(row, dict) and {"file_name", "image", "file", "path"} & set(row) for row in rows):
        return Answer("captions of a picture set, a list", JSON, {"pictures": len(rows)})
    return None
