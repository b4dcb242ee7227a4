"""The one colour word that a person would give a picture, measured from its pixels, or none."""

from __future__ import annotations

import numpy as np

AGREE = 0.75  # share of the ink that must have the colour; with less, people differ
VIVID = 0.45  # saturation from which a hue is called by its name; below lie greyish metals and beige
HUES = (  # upper end of the hue in degrees, word
    (12, "red"),
    (40, "orange"),
    (68, "yellow"),
    (165, "green"),
    (255, "blue"),
    (312, "purple"),
    (345, "pink"),
    (360, "red"),
)


def dominant_colour(pixels: np.ndarray) -> str | None:
    """Colour word of a uint8 RGB picture (height, width, 3) on white, None where no colour holds most of it.

    White paper and the white parts of a thing cannot be distinguished, so no picture is called white.
    """
    rgb = pixels.reshape(-1, 3).astype(np.float32) / 255
    rgb = rgb[rgb.min(1) < 0.9]
    if len(rgb) < 0.05 * pixels.shape[0] * pixels.shape[1]:
        return None
    high, chroma = rgb.max(1), np.ptp(rgb, axis=1)
    hue, saturation = _hue(rgb, high, chroma), chroma / np.maximum(high, 1e-6)
    ends, words = zip(*HUES, strict=True)
    hue_words = np.array(words)[np.searchsorted(np.array(ends), hue, side="right").clip(max=len(ends) - 1)]
    names = np.where(saturation >= VIVID, hue_words, "")
    names[(saturation < 0.12) & (high < 0.9)] = "grey"
    names[(high < 0.3) & (chroma < 0.15)] = "black"
    warm = (hue < 40) | (hue > 350)
    # brown is a dark orange or red, pink a pale red
    names[warm & (saturation >= 0.25) & (high < 0.7) & ((hue >= 10) & (hue < 40) | (high < 0.5))] = "brown"
    names[((hue > 312) | (hue < 8)) & (saturation >= 0.15) & (saturation < 0.62) & (high >= 0.8)] = "pink"
    values, counts = np.unique(names, return_counts=True)
    best = int(counts.argmax())
    return str(values[best]) or None if counts[best] >= AGREE * len(rgb) else None


def _hue(rgb: np.ndarray, high: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Hue in degrees, [0, 360)."""
    red, green, blue = rgb.T
    chroma = np.maximum(chroma, 1e-6)
    sector = np.where(
        high == red,
        ((green - blue) / chroma) % 6,
        np.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    hue: np.ndarray = sector * 60 % 360
    return hue
