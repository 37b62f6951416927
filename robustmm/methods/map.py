"""MAP: a prompt for each pattern of missing modalities.

Lee, Tsai, Chiu and Lee, "Multimodal Prompting with Missing Modalities for Visual
Recognition", CVPR 2023.

A frozen ViLT gets prompts in its first layers: one set for complete rows, one for rows
without text, one for rows without image. MSP, its nearest neighbour, has a set for each
modality instead; here a pattern that no training row has leaves its set untrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from numbers import Integral

import torch
from torch import Tensor, nn

from ..adapters import (
    N_PATTERNS,
    TwoLayerHead,
    add_prompt,
    layer_indices,
    normal_prompts,
    pattern_index,
    trained_pooler,
)
from ..backbones import Backbone, Tokens, load_backbone
from ..checks import check_choice, check_number
from ..trained import MultimodalClassifier

PROMPT_TYPES = ("input", "attention")


class MAPModule(nn.Module):
    r"""A frozen ViLT with the prompts of each row's pattern, pooler and head.

    With :math:`h` what enters a prompted layer :math:`f` and :math:`p` the prompt of
    the row's pattern in that layer, input prompts give :math:`f([p, h])`, and all rows
    go on, so that prompts accumulate. Attention prompts leave the length as it is:
    :math:`p = [p_k, p_v]`, and attention is over the keys :math:`[p_k, h W_k]` and
    values :math:`[p_v, h W_v]`.

    Shapes: ``prompts`` (3, layers, l, d), in the order complete, text missing, image
    missing; ``present`` (B, 2) bool, ``pixel_values`` (B, 3, H, W), ``input_ids`` and
    ``attention_mask`` (B, T); features (B, d); logits (B, C).
    """

    def __init__(
        self,
        backbone: Backbone,
        n_outputs: int,
        *,
        prompt_type: str,
        prompt_length: int,
        prompt_layers: int | Sequence[int],
    ):
        super().__init__()
        stream = backbone["joint"]
        self.backbone = backbone
        self.prompt_type = prompt_type
        self.layers = layer_indices("prompt_layers", prompt_layers, stream.n_layers)
        shape = (N_PATTERNS, len(self.layers), prompt_length, stream.width)
        self.prompts = normal_prompts(*shape)
        self.pooler = trained_pooler(stream.pooler, stream.width)
        self.head = TwoLayerHead(stream.width, n_outputs)

    def forward(self, **batch: Tensor) -> Tensor:
        """Return logits."""
        return self.head(self.features(**batch))

    def features(self, present: Tensor, **batch: Tensor) -> Tensor:
        """Return the pooled token behind the trained pooler, (B, d)."""
        stream = self.backbone["joint"]
        add = partial(self._add_prompt, pattern_index(present))
        return self.pooler(stream.pool(stream.run(stream.embed(**batch), add)))

    def _add_prompt(self, pattern: Tensor, i: int, tokens: Tokens) -> Tokens:
        if i not in self.layers:
            return tokens
        prompt = self.prompts[:, self.layers.index(i)][pattern]  # (B, l, d)
        return add_prompt(tokens, f"prompt_{i}", prompt, self.prompt_type)


class MAPClassifier(MultimodalClassifier):
    """Missing-aware prompts: a set of prompts for each missing pattern [1]_.

    The baseline that the papers of the field compare with. Defaults are the authors'
    recipe: AdamW with warm-up and linear decay, steps of 256 rows. Lower
    ``batch_size`` if the memory does not hold that many.

    Parameters
    ----------
    backbone : str or path-like
        Hub id, local folder or embedded name of a ViLT checkpoint.
    prompt_type : {"input", "attention"}
        Tokens in front of what enters a layer, or extra keys and values in it.
    prompt_length : int
        Rows of a prompt; half of them are keys for ``"attention"``.
    prompt_layers : int or sequence of int
        The first so many layers, or the layers listed, get prompts.
    image_column, text_column : str
        Columns to read; a null cell is a missing modality, as is a blank text.
    image_root : path-like, optional
        Folder that relative image paths start from.
    max_text_length : int, optional
        Longest text in tokens, 40 for ViLT. For more, positions are interpolated; the
        papers use 1024 (MM-IMDb), 512 (Food-101) and 128 (Hateful Memes).
    on_bad_image : {"raise", "missing"}
        Raise for images that cannot be read, or treat them as missing.
    max_epochs, batch_size : int
        Passes over the training rows; rows per optimiser step.
    lr, weight_decay : float
        AdamW's learning rate and weight decay; biases are not decayed.
    lr_schedule : str
        See :class:`MultimodalClassifier`.
    warmup : float
        Part of the steps that is warm-up.
    class_weight : "balanced", dict or None
        Weights of the classes.
    early_stopping : bool
        Keep the best epoch on held-out rows.
    validation_fraction : float
        The part held out.
    n_iter_no_change : int
        Patience of early stopping, in epochs.
    device, precision : str
        Where and in which type to compute; ``"auto"`` takes the best there is.
    cache : {"memory", None} or path-like
        Whether decoded images are kept, in memory or in an existing folder.
    checkpoint_dir : path-like, optional
        Existing folder for the state after each epoch: a ``fit`` that was killed goes
        on from there when it is called again with the same parameters and rows.
    random_state : int, RandomState instance or None
        Seed.
    verbose : int
        1 shows progress bars.
    net_params : dict, optional
        Further parameters of the skorch net.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    net_ : Net
        The fitted skorch net; the others are listed at :class:`MultimodalClassifier`.

    References
    ----------
    .. [1] Lee, Tsai, Chiu and Lee, "Multimodal Prompting with Missing Modalities for
       Visual Recognition", CVPR 2023.

    Examples
    --------
    >>> from robustmm import MAPClassifier, drop_modalities
    >>> from robustmm.datasets import make_scenes
    >>> X, y = make_scenes(60, n_classes=2, random_state=0)
    >>> X = drop_modalities(X, rate=0.7, scenario="both", random_state=0)
    >>> clf = MAPClassifier(
    ...     "robustmm/tiny-vilt",
    ...     prompt_length=4,
    ...     prompt_layers=2,
    ...     max_epochs=1,
    ...     random_state=0,
    ... )
    >>> clf.fit(X, y).predict_proba(X).shape
    (60, 2)
    """

    def __init__(
        self,
        backbone="dandelin/vilt-b32-mlm",
        *,
        prompt_type="input",
        prompt_length=16,
        prompt_layers=6,
        image_column="image",
        text_column="text",
        image_root=None,
        max_text_length=None,
        on_bad_image="raise",
        max_epochs=20,
        batch_size=256,
        lr=1e-2,
        weight_decay=0.02,
        lr_schedule="linear",
        warmup=0.1,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        device="auto",
        precision="auto",
        cache="memory",
        checkpoint_dir=None,
        random_state=None,
        verbose=0,
        net_params=None,
    ):
        super().__init__(
            image_column=image_column,
            text_column=text_column,
            image_root=image_root,
            max_text_length=max_text_length,
            on_bad_image=on_bad_image,
            max_epochs=max_epochs,
            batch_size=batch_size,
            lr=lr,
            weight_decay=weight_decay,
            lr_schedule=lr_schedule,
            warmup=warmup,
            class_weight=class_weight,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            device=device,
            precision=precision,
            cache=cache,
            checkpoint_dir=checkpoint_dir,
            random_state=random_state,
            verbose=verbose,
            net_params=net_params,
        )
        self.backbone = backbone
        self.prompt_type = prompt_type
        self.prompt_length = prompt_length
        self.prompt_layers = prompt_layers

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_choice("prompt_type", self.prompt_type, PROMPT_TYPES)
        check_number("prompt_length", self.prompt_length, Integral, 1)
        if self.prompt_type == "attention" and self.prompt_length % 2:
            raise ValueError(
                "prompt_length must be even for attention prompts, half keys and half "
                f"values, got {self.prompt_length}."
            )

    def _load_backbone(self, device: torch.device) -> Backbone:
        backbone = load_backbone(
            self.backbone,
            streams=("joint",),
            device=device,
            max_text_length=self.max_text_length,
        )
        # Here, so that no image is decoded in vain.
        layer_indices("prompt_layers", self.prompt_layers, backbone["joint"].n_layers)
        return backbone

    def _optimizer_options(self) -> dict:
        return {
            "optimizer__betas": (0.9, 0.98),
            "optimizer__param_groups": [("*bias", {"weight_decay": 0.0})],
        }

    def _build_module(self, backbone: Backbone, n_outputs: int) -> MAPModule:
        return MAPModule(
            backbone,
            n_outputs,
            prompt_type=self.prompt_type,
            prompt_length=self.prompt_length,
            prompt_layers=self.prompt_layers,
        )
