"""How well a tiny autoencoder's halves keep photographs: PSNR, and a sheet of pictures before and after.

python bench/tiny_autoencoder.py taef2_encoder.pth taef2_decoder.pth photographs --scale 8 --out sheet.png

Halves may be pickles, GGUF or safetensors, in TAESD's own names. Photographs are a folder, read with all below it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from unnoise.autoencoders.taesd import TinyAutoencoder
from unnoise.pictures import from_bytes, from_image, sheet, to_bytes
from unnoise.weights.jail import unpack
from unnoise.weights.keys import state_to_ours
from unnoise.weights.names import taesd


def half(path: Path) -> TinyAutoencoder:
    """A half out of its file."""
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder) / "half.safetensors", "float32")
        state = load_file(Path(folder) / "half.safetensors")
    config = taesd.from_shapes({name: tuple(t.shape) for name, t in state.items()}, "taesd")
    module = TinyAutoencoder(config).eval()
    module.load_state_dict(state_to_ours(taesd.table(config, "taesd"), state))
    return module


def photographs(folder: Path, count: int, scale: int) -> list[Tensor]:
    """The first pictures of a folder, in the order of their names, enlarged and cut to multiples of 8."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pictures = []
    for file in files[:: max(1, len(files) // count)][:count]:
        with Image.open(file) as image:
            large = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
        pictures.append(from_image(large)[:, : large.height // 8 * 8, : large.width // 8 * 8])
    return pictures


@torch.inference_mode()
def main() -> None:
    """Measures, and writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("decoder", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--scale", type=int, default=1, help="how many times larger each picture is made first")
    parser.add_argument("--out", type=Path, help="a sheet of the first eight pictures, each before and after")
    options = parser.parse_args()
    encoder, decoder = half(options.encoder), half(options.decoder)
    values, shown = [], []
    for picture in photographs(options.folder, options.count, options.scale):
        z = encoder.encode(from_bytes(picture)[None]).mean
        again = to_bytes(decoder.decode(z))[0]
        error = (picture.float() - again.float()).square().mean()
        values.append(float(10 * torch.log10(255**2 / error)))
        if len(shown) < 16:
            side = min(256, *picture.shape[1:])
            shown += [each[:, :side, :side] for each in (picture, again)]
    numbers = torch.tensor(values)
    print(
        f"{len(values)} photographs: PSNR {numbers.mean():.2f} dB, from {numbers.min():.2f} to {numbers.max():.2f}; "
        f"latents of {tuple(z.shape[1:])}, mean {z.mean():.3f}, deviation {z.std():.3f}"
    )
    if options.out:
        sheet([Image.fromarray(each.permute(1, 2, 0).numpy()) for each in shown], columns=4).save(options.out)
        print(options.out)


if __name__ == "__main__":
    main()
