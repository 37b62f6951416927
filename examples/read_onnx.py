"""
A model without the package
===========================

A fitted classifier becomes one file, ``model.onnx``, which onnxruntime runs: no torch,
no transformers, no robustmm. ``Reader`` below is all that an application needs to
turn pictures and texts into the inputs of the graph; copy it. It imports numpy, Pillow,
onnxruntime and tokenizers alone.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer


# %%
# What an application copies
# --------------------------
class Reader:
    """Probabilities of rows of images and texts, from a file of ``to_onnx``.

    Parameters
    ----------
    path : path-like
        The file.

    Attributes
    ----------
    classes : list
        Labels in the order of the probabilities.
    """

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(path)
        about = self.session.get_modelmeta().custom_metadata_map["robustmm"]
        about = json.loads(about)
        self.classes = about["classes"]
        self.image, self.pad_id = about.get("image"), about.get("pad_id")
        self.names = [entry.name for entry in self.session.get_inputs()]
        if "tokenizer" in about:
            self.tokenizer = Tokenizer.from_str(about["tokenizer"])

    def __call__(self, rows) -> np.ndarray:
        """Return probabilities (n, n_classes) of pairs (picture, text) or None."""
        images, texts = zip(*rows, strict=True)
        here = [[im is not None, bool((t or "").strip())] for im, t in rows]
        inputs = {"present": np.array(here)}  # (n, 2) bool
        if "input_ids" in self.names:
            inputs |= self.read_texts(texts)
        if "pixel_values" in self.names:
            inputs |= self.read_images(images)
        return self.session.run(None, {name: inputs[name] for name in self.names})[0]

    def read_texts(self, texts) -> dict[str, np.ndarray]:
        """Return input_ids and attention_mask, (n, T) int64."""
        encoded = [self.tokenizer.encode(text or "").ids for text in texts]
        longest = max(map(len, encoded))
        ids = np.full((len(texts), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, known in enumerate(encoded):
            ids[row, : len(known)], mask[row, : len(known)] = known, 1
        return {"input_ids": ids, "attention_mask": mask}

    def read_images(self, images) -> dict[str, np.ndarray]:
        """Return pixel_values (n, 3, H, W) float32, pixel_mask (n, H, W) int64."""
        # In the place of a missing one, one of the size that the graph fills itself.
        pixels = [self.prepare(im or Image.new("RGB", (64, 64))) for im in images]
        height, width = np.max([p.shape[1:] for p in pixels], axis=0)
        values = np.zeros((len(images), 3, height, width), dtype=np.float32)
        mask = np.zeros((len(images), height, width), dtype=np.int64)
        for row, known in enumerate(pixels):
            _, tall, wide = known.shape
            values[row, :, :tall, :wide], mask[row, :tall, :wide] = known, 1
        return {"pixel_values": values, "pixel_mask": mask}

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Resize, crop and normalise, (3, H, W)."""
        said, picture = self.image, picture.convert("RGB")
        if said["do_resize"]:
            size = self.resized(*picture.size)
            picture = picture.resize(size, said["resample"])
        if said["do_center_crop"]:
            wide, tall = said["crop_size"]["width"], said["crop_size"]["height"]
            left, top = (picture.width - wide) // 2, (picture.height - tall) // 2
            picture = picture.crop((left, top, left + wide, top + tall))
        pixels = np.asarray(picture, dtype=np.float32)
        if said["do_rescale"]:
            pixels = pixels * said["rescale_factor"]
        if said["do_normalize"]:
            pixels = (pixels - said["image_mean"]) / said["image_std"]
        return pixels.transpose(2, 0, 1)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after resizing."""
        size, divisor = self.image["size"], self.image.get("size_divisor")
        if "height" in size:
            return size["width"], size["height"]
        edge, short = size["shortest_edge"], min(width, height)
        if divisor is None:  # CLIP
            longer = int(edge * max(width, height) / short)
            return (edge, longer) if width <= height else (longer, edge)
        # ViLT: at most 1333/800 times longer than wide, in whole patches.
        scale = min(edge / short, int(1333 / 800 * edge) / max(width, height))
        wide, tall = (int(side * scale + 0.5) // divisor for side in (width, height))
        return max(1, wide) * divisor, max(1, tall) * divisor


# %%
# Fit, export, and compare
# ------------------------


def main() -> None:
    """Export a model and ask it with and without the package."""
    from robustmm import LinearProbeClassifier, drop_modalities
    from robustmm.datasets import make_scenes

    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rows", type=int, default=120, help="rows in the table")
    args = parser.parse_args()
    X, y = make_scenes(args.rows, n_classes=4, random_state=0)
    X = drop_modalities(X, 0.5, "both", random_state=0)
    clf = LinearProbeClassifier("robustmm/tiny-clip").fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        clf.to_onnx(path)
        reader = Reader(path)
        print(f"{path.stat().st_size / 2**20:.1f} MiB, inputs {reader.names}")
    table = X[["image", "text"]].head(32)
    pictures = [
        None if im is None else Image.fromarray(np.asarray(im)) for im in table.image
    ]
    texts = [text if isinstance(text, str) else None for text in table.text]
    found = reader(list(zip(pictures, texts, strict=True)))
    apart = abs(found - clf.predict_proba(table)).max()
    print(f"Probabilities differ by {apart:.1e} from those of predict_proba.")


if __name__ == "__main__":
    main()
