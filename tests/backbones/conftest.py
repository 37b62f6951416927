"""Tiny random checkpoints of every supported architecture, saved to folders."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from robustmm.backbones import clear_backbone_cache

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "ball", "box", "house"]
PAD, CLS, SEP = 0, 2, 3

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXT = {
    **SMALL,
    "vocab_size": len(WORDS),
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "max_position_embeddings": 12,
}
IMAGE = {**SMALL, "image_size": 16, "patch_size": 4}
# A grid of two frequencies by four times.
AUDIO = {**SMALL, "max_length": 46, "num_mel_bins": 28}
CLIP_TEXT = {**TEXT, "projection_dim": 8}
CLIP_IMAGE = {**IMAGE, "projection_dim": 8}


def _configs():
    t = transformers
    distil = {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24}
    dino = {**IMAGE, "layerscale_value": 0.5, "mlp_ratio": 2}
    siglip_text = {**TEXT, "projection_size": 16}
    return {
        "vilt": t.ViltConfig(**{**TEXT, **IMAGE}, max_image_length=-1),
        "clip": t.CLIPConfig(
            text_config=CLIP_TEXT, vision_config=CLIP_IMAGE, projection_dim=8
        ),
        "siglip": t.SiglipConfig(text_config=siglip_text, vision_config=IMAGE),
        "bert": t.BertConfig(**TEXT),
        "roberta": t.RobertaConfig(**{**TEXT, "max_position_embeddings": 13}),
        "distilbert": t.DistilBertConfig(
            **distil,
            vocab_size=len(WORDS),
            pad_token_id=PAD,
            max_position_embeddings=12,
        ),
        "vit": t.ViTConfig(**IMAGE),
        "deit": t.DeiTConfig(**IMAGE),
        "dinov2": t.Dinov2Config(**dino),
        "dinov2-gated": t.Dinov2Config(**dino, use_swiglu_ffn=True),
        "clip_vision_model": t.CLIPVisionConfig(**CLIP_IMAGE),
        "siglip_vision_model": t.SiglipVisionConfig(**IMAGE),
        "audio-spectrogram-transformer": t.ASTConfig(**AUDIO),
    }


def _tokenizer():
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def save(name, folder, seed=0, dtype=torch.float32, tokenizer=True):
    """Save a random model and a tokenizer, quietly; return the folder."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(_configs()[name])
    with torch.no_grad():
        # Away from the zeros and ones of a fresh model, which would hide mistakes.
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    if tokenizer:
        _tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Return a function: architecture -> folder of its tiny checkpoint."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp("checkpoints") / name)
        return made[name]

    return folder


@pytest.fixture
def save_model():
    """Return the function that saves a tiny random model."""
    return save


@pytest.fixture(autouse=True)
def _no_backbones_before():
    clear_backbone_cache()


@pytest.fixture
def batch():
    """Return three samples: texts of different lengths, images and sounds of one."""
    ids = torch.tensor(
        [[CLS, 4, 5, 7, SEP], [CLS, SEP, PAD, PAD, PAD], [CLS, 4, 9, SEP, PAD]]
    )
    return {
        "input_ids": ids,
        "attention_mask": (ids != PAD).long(),
        "pixel_values": torch.randn(3, 3, 16, 16),
        "input_values": torch.randn(3, 46, 28),
    }
