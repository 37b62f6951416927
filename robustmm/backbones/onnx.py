"""Write what a fitted module predicts as an ONNX file."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .host import TracedBatch

# Names of the inputs, in their order; those that an encoder does not read are left out.
INPUTS = ("pixel_values", "pixel_mask", "input_ids", "attention_mask", "present")
OUTPUT = "probabilities"
# Key of the file's metadata, under which JSON says how to prepare rows.
METADATA = "robustmm"
# A file of protocol buffers holds two GiB; of larger models, weights go beside it.
_MOST_BYTES = 2**31 - 2**27
# Of an example that is only traced; no two sizes alike, and none 0 or 1.
_ROWS, _MORE_TOKENS = 3, 5


class Prediction(nn.Module):
    """From the inputs of a batch to probabilities, whatever a missing cell holds.

    Nothing is decided from what a batch holds, as a traced graph cannot: all rows are
    run through all encoders. Missing cells become what they are everywhere else, a
    white image and an empty text, before anything reads them.

    Parameters
    ----------
    module : Module
        A method's, fitted, in evaluation mode and on the CPU.
    blank : mapping of str to Tensor
        The batch of one row without any modality.
    prior : Tensor of shape (C,)
        Probabilities of a row without any modality.
    multilabel : bool
        Whether probabilities are independent.
    pad_id : int
        What shorter texts are filled with.

    Notes
    -----
    Shapes: ``present`` (B, 2) bool, image before text; ``pixel_values`` (B, 3, H, W);
    ``pixel_mask`` (B, H, W), ``input_ids`` and ``attention_mask`` (B, T) int64; result
    (B, C).
    """

    def __init__(
        self,
        module: nn.Module,
        blank: Mapping[str, Tensor],
        prior: Tensor,
        *,
        multilabel: bool,
        pad_id: int = 0,
    ):
        super().__init__()
        self.module = module
        self.blank = {name: blank[name] for name in INPUTS if name in blank}
        self.multilabel, self.pad_id = multilabel, pad_id
        self.register_buffer("prior", prior.float())
        if "input_ids" in blank:
            self.register_buffer("empty_text", blank["input_ids"][0])  # (t,)
        if "pixel_values" in blank:
            # It is one colour, whatever the mean of each channel.
            self.register_buffer("white", blank["pixel_values"][0, :, :1, :1])
            self.white_size = tuple(blank["pixel_values"].shape[2:])

    def forward(
        self,
        present: Tensor,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return probabilities, (B, C)."""
        image, text = present.unbind(dim=1)
        batch = {"present": present}
        if pixel_values is not None:
            batch |= self._whitened(image, pixel_values, pixel_mask)
        if input_ids is not None:
            batch |= self._emptied(text, input_ids, attention_mask)
        logits = self.module(host=TracedBatch(present), **batch)
        known = logits.sigmoid() if self.multilabel else logits.softmax(dim=1)
        return torch.where((image | text)[:, None], known, self.prior)

    def _whitened(
        self, here: Tensor, pixel_values: Tensor, pixel_mask: Tensor | None
    ) -> dict[str, Tensor]:
        """Put the white image where there is none."""
        here = here[:, None, None]  # (B, 1, 1)
        if pixel_mask is None:
            values = torch.where(here[:, None], pixel_values, self.white)
            return {"pixel_values": values}
        height, width = pixel_values.shape[2:]
        down = torch.arange(height, device=here.device) < self.white_size[0]
        right = torch.arange(width, device=here.device) < self.white_size[1]
        inside = down[:, None] & right  # (H, W)
        values = torch.where(here[:, None], pixel_values, self.white * inside)
        return {
            "pixel_values": values,
            "pixel_mask": torch.where(here, pixel_mask, inside.long()),
        }

    def _emptied(
        self, here: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> dict[str, Tensor]:
        """Put the empty text where there is none."""
        place = torch.arange(input_ids.shape[1], device=here.device)
        last = self.empty_text.shape[0] - 1
        inside = place <= last  # (T,)
        ids = self.empty_text[place.clamp(max=last)].where(inside, self.pad_id)
        return {
            "input_ids": torch.where(here[:, None], input_ids, ids),
            "attention_mask": torch.where(here[:, None], attention_mask, inside.long()),
        }


def need_onnx() -> None:
    """Raise ImportError, with the remedy, unless a model can be written."""
    # Here and not above: both are optional, and slow to import.
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'to_onnx needs onnx and onnxscript: pip install "robustmm[export]".'
        ) from error


def write_onnx(
    prediction: Prediction,
    metadata: Mapping[str, Any],
    path: str | Path,
    ragged: bool = False,
) -> None:
    """Trace a prediction and write it, with JSON metadata.

    Parameters
    ----------
    prediction : Prediction
    metadata : mapping
    path : path-like
        A file that is written anew. Weights of more than 2 GiB go beside it, into a
        file of its name and ``.data``.
    ragged : bool
        Whether images have several sizes, and a mask.

    Raises
    ------
    ImportError
        If onnx or onnxscript is not installed.
    """
    need_onnx()
    example = _example(prediction.blank, ragged)
    axes = {name: _axes(name, ragged) for name in example}
    size = torch.export.Dim.DYNAMIC
    with torch.no_grad(), _quiet():
        # By the compiler's tracer: the other one makes numbers of sizes it meets.
        traced = torch.export.export(
            prediction.eval(),
            (),
            example,
            dynamic_shapes={n: dict.fromkeys(known, size) for n, known in axes.items()},
            strict=True,
        )
        names = {"input_names": list(example), "output_names": [OUTPUT]}
        program = torch.onnx.export(
            traced, dynamo=True, verbose=False, dynamic_shapes=axes, **names
        )
        text = json.dumps(metadata, ensure_ascii=False, default=str)
        program.model.metadata_props[METADATA] = text
        tensors = prediction.state_dict().values()
        weights = sum(t.numel() * t.element_size() for t in tensors)
        program.save(str(path), external_data=weights > _MOST_BYTES)


def _example(blank: Mapping[str, Tensor], ragged: bool) -> dict[str, Tensor]:
    """Return inputs to trace with, by name, in their order."""
    rows = {k: v.expand(_ROWS, *v.shape[1:]) for k, v in blank.items()}
    rows["present"] = torch.ones(_ROWS, 2, dtype=torch.bool)
    if "input_ids" in rows:
        for name in ("input_ids", "attention_mask"):
            rows[name] = nn.functional.pad(rows[name], (0, _MORE_TOKENS))
    if ragged:
        size = rows["pixel_values"].shape[2:]
        rows["pixel_mask"] = torch.ones(_ROWS, *size, dtype=torch.long)
    return {name: rows[name].contiguous() for name in INPUTS if name in rows}


def _axes(name: str, ragged: bool) -> dict[int, str]:
    """Name the sizes of an input that may be any."""
    if name in ("input_ids", "attention_mask"):
        return {0: "batch", 1: "tokens"}
    if ragged and name == "pixel_values":
        return {0: "batch", 2: "height", 3: "width"}
    if ragged and name == "pixel_mask":
        return {0: "batch", 1: "height", 2: "width"}
    return {0: "batch"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter says of its own parts."""
    loggers = [
        logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
