"""AST beyond parity: both layouts of its layers, its sizes, and inserted tokens."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ASTConfig, ASTForAudioClassification, ASTModel, AutoModel

from robustmm.backbones import ASTStream, load_backbone
from robustmm.backbones.attention import attention_maps

NAME = "audio-spectrogram-transformer"
# What 5.9 renamed, as its parts were called before.
BEFORE = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.activation_fn": "intermediate.intermediate_act_fn",
    "mlp.fc2": "output.dense",
}


def renamed(layer):
    """Return a layer whose parts stand where they stood before transformers 5.9."""
    old = nn.Module()
    for name in ("layernorm_before", "layernorm_after"):
        setattr(old, name, getattr(layer, name))
    for now, before in BEFORE.items():
        *way, leaf = before.split(".")
        place = old
        for step in way:
            if not hasattr(place, step):
                setattr(place, step, nn.Module())
            place = getattr(place, step)
        setattr(place, leaf, layer.get_submodule(now))
    return old


@pytest.fixture
def stream(folders):
    return load_backbone(folders(NAME))["audio"]


def pooled(stream, values):
    with torch.no_grad():
        return stream.pool(stream.run(stream.embed(input_values=values)))


def test_the_layout_before_5_9_gives_the_same(folders, batch):
    model = AutoModel.from_pretrained(folders(NAME)).eval()
    new = ASTStream(model)
    old = nn.Module()
    old.config, old.embeddings = model.config, model.embeddings
    old.layernorm, old.encoder = model.layernorm, nn.Module()
    old.encoder.layer = nn.ModuleList(map(renamed, model.layers))
    values = batch["input_values"]
    assert torch.equal(pooled(ASTStream(old), values), pooled(new, values))


def test_checkpoints_are_stored_under_the_older_names(folders):
    names = load_file(folders(NAME) / "model.safetensors")
    assert "encoder.layer.0.attention.attention.query.weight" in names


def test_published_checkpoints_have_a_head_that_is_left_out(folders, batch, tmp_path):
    model = AutoModel.from_pretrained(folders(NAME))
    whole = ASTForAudioClassification(model.config)
    whole.audio_spectrogram_transformer.load_state_dict(model.state_dict())
    whole.save_pretrained(tmp_path)
    first, second = load_backbone(folders(NAME)), load_backbone(tmp_path)
    assert first.fingerprint == second.fingerprint


def test_the_size_of_the_published_model():
    with torch.device("meta"):
        stream = ASTStream(ASTModel(ASTConfig()))
    assert sum(p.numel() for p in stream.parameters()) == 86_187_264
    assert stream.shape == (1024, 128)
    assert len(stream.positions()) == 2 + 12 * 101


@pytest.mark.parametrize("shape", [(45, 28), (47, 28), (46, 27), (1024, 128)])
def test_clips_of_other_sizes_are_refused(stream, shape):
    with pytest.raises(ValueError, match="clips of 46 frames and 28 filters, got"):
        stream.embed(torch.zeros(2, *shape))


def test_a_proxy_is_inserted_behind_the_position_sum(stream, batch):
    tokens = stream.embed(input_values=batch["input_values"])
    proxy = torch.randn(1, stream.width)
    more = tokens.insert("proxy", proxy)
    torch.testing.assert_close(more["proxy"], proxy.expand(3, 1, -1))
    run = stream.run(more, keep=("proxy",))
    assert run["proxy"].shape == (3, 1, 16)
    # The class token sees it, the distillation token is one of the others.
    assert not torch.allclose(stream.pool(run), stream.pool(stream.run(tokens)))


def test_attention_is_read_over_frequency_and_time(stream, batch):
    values = batch["input_values"]
    maps = attention_maps(stream, stream.embed(input_values=values), -1, values)
    assert maps["class"].shape == (3, 2, 4)


def test_patches_apart_make_another_fingerprint(save_model, tmp_path):
    # Of other strides and as many patches: no tensor differs.
    first = load_backbone(save_model(NAME, tmp_path / "a"))
    config = tmp_path / "a" / "config.json"
    text = config.read_text()
    assert '"time_stride": 10' in text
    config.write_text(text.replace('"time_stride": 10', '"time_stride": 6'))
    with pytest.raises(OSError, match="cannot be read"):
        load_backbone(tmp_path / "a")
    config.write_text(text.replace('"time_stride": 10', '"time_stride": 9'))
    assert load_backbone(tmp_path / "a").fingerprint != first.fingerprint
