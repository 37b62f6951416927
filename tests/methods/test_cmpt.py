"""CMPT: equations, counts, and that a missing stream is not run."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from clip_cases import count, full_size_clip
from contract import frame_with_holes, small
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from torch.nn import functional as F

from robustmm import CMPTClassifier, load, load_backbone, save
from robustmm.backbones import Backbone
from robustmm.methods.cmpt import CMPTModule, initial_proxies

DEFAULTS = {
    "rank": 1,
    "alpha": 1,
    "dropout": 0.0,
    "adapter": "lora",
    "lambda_align": 0.2,
    "detach_target": False,
    "align_reduction": "sum",
    "adapt_text_ffn": False,
}


def build(n_outputs=3, **options):
    backbone = Backbone.join(
        image=load_backbone("robustmm/tiny-clip", streams=("image",)),
        text=load_backbone("robustmm/tiny-bert", streams=("text",)),
    )
    options.setdefault("proxies", initial_proxies(backbone, None))
    return CMPTModule(backbone, n_outputs, **DEFAULTS | options)


def batch_of(present, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = len(present)
    size = load_backbone("robustmm/tiny-clip").image_config["size"]
    ids = torch.randint(5, 60, (n, 7), generator=generator)
    return {
        "pixel_values": torch.randn(
            n, 3, size["height"], size["width"], generator=generator
        ),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "present": torch.tensor(present),
    }


PRESENT = [[True, True], [False, True], [True, False], [True, True]]


def perturb(module, seed=1):
    """Leave the initial point, where adapters do nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.05 * noise)
    return module.eval()


def test_fused_token_is_equation_5():
    module = perturb(build())
    batch = batch_of(PRESENT)
    everything = torch.ones_like(batch["present"])
    data = {k: v for k, v in batch.items() if k != "present"}
    (c_image, c_text), (p_image, p_text) = (
        t.unbind(1) for t in module._encode(everything, data)
    )
    expected = torch.stack(
        [
            c_image[0] + c_text[0],
            c_text[1] + p_text[1],
            c_image[2] + p_image[2],
            c_image[3] + c_text[3],
        ]
    )
    torch.testing.assert_close(module.features(**batch), expected, atol=1e-5, rtol=0)


def test_penalty_is_equation_4_over_complete_rows():
    module = perturb(build()).train()
    batch = batch_of(PRESENT)
    data = {k: v for k, v in batch.items() if k != "present"}
    classes, proxies = module._encode(batch["present"], data)
    rows = [0, 3]
    expected = F.mse_loss(proxies[rows, 0], classes[rows, 1]) + F.mse_loss(
        proxies[rows, 1], classes[rows, 0]
    )
    _, penalty = module(**batch)
    torch.testing.assert_close(penalty, 0.2 * expected)
    module.align_scale = 0.5
    torch.testing.assert_close(module(**batch)[1], 0.1 * expected)


def test_no_complete_row_no_penalty():
    module = build().train()
    assert module(**batch_of([[True, False], [False, True]]))[1] == 0


def test_detached_target_gets_no_gradient():
    for detach in (False, True):
        module = perturb(build(detach_target=detach, lambda_align=1.0)).train()
        batch = batch_of([[True, True]])
        data = {k: v for k, v in batch.items() if k != "present"}
        classes, proxies = module._encode(batch["present"], data)
        classes.retain_grad()
        module._misalignment(classes, proxies, batch["present"]).backward()
        assert (classes.grad is None) == detach


def test_missing_stream_is_not_run():
    module = build().eval()
    lengths = {"image": [], "text": []}
    for name in lengths:
        stream = module.backbone[name]
        step = stream.step

        def counted(i, tokens, *args, _name=name, _step=step, **kwargs):
            if i == 0:
                lengths[_name].append(len(tokens.values))
            return _step(i, tokens, *args, **kwargs)

        stream.step = counted
    module(**batch_of(PRESENT))
    module(**batch_of([[False, True]] * 3))
    module(**batch_of([[True, False]] * 2))
    assert lengths == {"image": [3, 2], "text": [3, 3]}


def test_missing_input_and_batch_mates_change_nothing():
    module = perturb(build())
    batch = batch_of(PRESENT)
    logits = module(**batch)
    other = batch_of(PRESENT, seed=9)
    mixed = dict(batch)
    mixed["pixel_values"] = batch["pixel_values"].clone()
    mixed["pixel_values"][1] = other["pixel_values"][1]
    torch.testing.assert_close(module(**mixed), logits)
    alone = module(**{k: v[1:2] for k, v in batch.items()})
    torch.testing.assert_close(alone, logits[1:2], atol=1e-5, rtol=0)


def test_hidden_cells_leave_the_sum_and_not_the_alignment():
    module = perturb(build()).train()
    batch = batch_of([[True, True]] * 4)
    hidden = torch.tensor([[True, False], [False, True], [False, False], [True, False]])
    logits, penalty = module(**batch, hidden=hidden)
    lost, _ = module(**batch | {"present": batch["present"] & ~hidden})
    torch.testing.assert_close(logits, lost, atol=1e-5, rtol=0)
    _, expected = module(**batch)
    torch.testing.assert_close(penalty, expected)


@pytest.mark.parametrize("adapter", ["lora", "dora", "vera"])
def test_adapters_start_as_the_frozen_encoders(adapter):
    module = build(adapter=adapter).eval()
    plain = load_backbone("robustmm/tiny-bert")["text"]
    batch = batch_of([[False, True]])
    ids = {k: batch[k] for k in ("input_ids", "attention_mask")}
    stream = module.backbone["text"]
    adapted = stream.pool(stream.run(stream.embed(**ids)))
    torch.testing.assert_close(
        adapted, plain.pool(plain.run(plain.embed(**ids))), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    "option",
    [
        {"adapter": "vera"},
        {"adapter": "dora"},
        {"use_proxy": False},
        {"proxy_init": "normal"},
        {"adapt_text_ffn": True},
        {"detach_target": True},
    ],
    ids=str,
)
def test_ablations_train_and_pickle(option):
    X, y = frame_with_holes()
    fitted = small(CMPTClassifier, lr=1e-2, **option).fit(X, y)
    assert np.isfinite(fitted.history_["train_loss"]).all()
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copy.predict_proba(X), fitted.predict_proba(X))


def test_proxies_start_as_the_class_tokens():
    fitted = small(CMPTClassifier, lr=1e-12).fit(*frame_with_holes())
    module = fitted.net_.module_
    # With adapters that do nothing, the proxy then is the class token once more.
    batch = fitted._blank_batch(module.backbone)
    present = torch.ones(1, 2, dtype=torch.bool)
    data = {k: v for k, v in batch.items() if k in ("pixel_values", "input_ids")}
    data["attention_mask"] = batch["attention_mask"]
    classes, proxies = module.eval()._encode(present, data)
    torch.testing.assert_close(proxies, classes, atol=1e-4, rtol=0)


def test_automatic_modality_dropout_follows_the_data():
    X, y = frame_with_holes()
    complete = X.notna().all(axis=1)
    rates, make = [], CMPTClassifier._dropout

    class Watched(CMPTClassifier):
        def _dropout(self, module, train):
            dropout = make(self, module, train)
            rates.append(0.0 if dropout is None else dropout.probability)
            return dropout

    small(Watched).fit(X[complete], y[complete])
    # One row with a hole is no reason to give it up.
    nearly = complete.copy()
    nearly.iloc[0] = True
    small(Watched).fit(X[nearly], y[nearly])
    small(Watched).fit(X, y)
    assert rates == pytest.approx([2 / 3, 1 - 9 / 24, 0.0])


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(CMPTClassifier, max_epochs=8, lr=5e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_grid_over_rank_with_string_labels():
    X, y = frame_with_holes(24)
    search = GridSearchCV(small(CMPTClassifier), {"rank": [1, 2]}, cv=3).fit(X, y)
    assert search.best_params_["rank"] in (1, 2)
    assert set(search.predict(X)) <= set(y)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A text encoder of one layer and 32 features, where the image encoder has 128."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    config = BertConfig(vocab_size=2000, num_hidden_layers=1, **sizes)
    folder = tmp_path_factory.mktemp("narrow")
    BertModel(config).save_pretrained(folder)
    load_backbone("robustmm/tiny-bert").tokenizer.save_pretrained(folder)
    return str(folder)


def test_different_widths_are_refused(narrow):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match="equally wide, got") as refused:
        small(CMPTClassifier, text_backbone=narrow).fit(X, y)
    told = f"got 128 for 'robustmm/tiny-clip' and 32 for {narrow!r}: width=32 would"
    assert told in str(refused.value)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """CLIP-B/16 and BERT-base with random weights, saved as local folders."""
    from transformers import BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel

    tokenizer = load_backbone("robustmm/tiny-bert").tokenizer
    folders = [tmp_path_factory.mktemp(name) for name in ("clip", "bert")]
    vision = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        patch_size=16,
    )
    for folder, model in zip(
        folders, (CLIPVisionModel(vision), BertModel(BertConfig())), strict=True
    ):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return [str(folder) for folder in folders]


@pytest.mark.slow
def test_full_size_counts_and_pickle(full_size):
    X, y = frame_with_holes(6)
    image, text = full_size
    fitted = CMPTClassifier(
        image, text, max_epochs=1, batch_size=6, random_state=0, device="cpu"
    ).fit(X, y)
    module = fitted.net_.module_
    low_rank = [
        p.numel()
        for name, p in module.named_parameters()
        if name.endswith((".down", ".up"))
    ]
    assert sum(low_rank) == 147_456
    head_and_proxies = 2 * 768 + 2 * 769
    assert fitted.n_trainable_parameters_ == 147_456 + head_and_proxies
    assert len(pickle.dumps(fitted)) < 3_000_000


# Attention --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    X, y = frame_with_holes()
    return small(CMPTClassifier, rank=4, lr=3e-3, max_epochs=2).fit(X, y)


def test_attention_maps_have_a_line_per_patch_and_word(fitted):
    X, _ = frame_with_holes()
    X = X.set_axis([f"row {i}" for i in range(len(X))])
    maps = fitted.attention_maps(X)
    places = ["row", "modality", "token"]
    sizes = maps.groupby(places).size()
    for label, cells in X[X[["image", "text"]].notna().any(axis=1)].iterrows():
        there = [m for m in ("image", "text") if pd.notna(cells[m])]
        assert sizes[label].index.tolist() == [
            (m, token) for m in there for token in ("class", "proxy")
        ]
        if "text" in there:
            part = maps[(maps["row"] == label) & (maps["modality"] == "text")]
            words = part[part["token"] == "proxy"]["word"]
            assert "".join(words) == cells["text"].replace(" ", "")
    images = sizes.loc[:, "image"]
    assert (images == 36).all()
    assert maps["attention"].between(0, 1).all()
    sums = maps.groupby(places)["attention"].sum()
    assert sums.between(0.01, 1).all()


def attention_in_every_layer(module, modality, batch):
    """Mean over the heads, (n_layers, L, L), of one row with its proxy at the end."""
    stream, seen = module.backbone[modality], []

    def look(i, tokens):
        seen.append(stream.attention(i, tokens).mean(1)[0])
        return tokens

    with torch.inference_mode():
        tokens = stream.embed(**batch).insert("proxy", module.proxies[modality])
        stream.run(tokens, look)
    return torch.stack(seen).numpy()


@pytest.mark.parametrize("layer", [0, 2, -1])
def test_attention_maps_are_those_of_the_layer(fitted, layer):
    X, _ = frame_with_holes()
    row, module = X[X.notna().all(axis=1)].iloc[[0]], fitted.net_.module_
    data = fitted._dataset(module.backbone, fitted._check_X(row, reset=False))
    batch, _ = fitted._collate(module.backbone)([data[0]])
    batch |= batch["pictures"].pixels()
    maps = fitted.attention_maps(row, layer).groupby(["modality", "token"])["attention"]
    # The class token stands first, the proxy last, and a separator before it.
    for token, place in (("class", 0), ("proxy", -1)):
        pixels = {"pixel_values": batch["pixel_values"]}
        weights = attention_in_every_layer(module, "image", pixels)[layer, place]
        found = maps.get_group(("image", token)).to_numpy()
        np.testing.assert_allclose(found, weights[1:-1], atol=1e-6)
        words = {name: batch[name] for name in ("input_ids", "attention_mask")}
        weights = attention_in_every_layer(module, "text", words)[layer, place]
        found = maps.get_group(("text", token)).to_numpy()
        assert found.sum() == pytest.approx(weights[1:-2].sum(), abs=1e-5)
        assert found[0] == pytest.approx(weights[1], abs=1e-6)


def test_attention_of_a_row_does_not_depend_on_the_others(fitted):
    X, _ = frame_with_holes()
    together = fitted.attention_maps(X)
    for i in (0, 3, 7):
        alone = fitted.attention_maps(X.iloc[[i]])
        same = together[together["row"] == X.index[i]]
        assert same["position"].tolist() == alone["position"].tolist()
        np.testing.assert_allclose(same["attention"], alone["attention"], atol=1e-5)


def test_looking_at_attention_leaves_predictions_as_they_are(fitted):
    X, _ = frame_with_holes()
    before = fitted.decision_function(X)
    fitted.attention_maps(X, layer=1)
    np.testing.assert_array_equal(fitted.decision_function(X), before)


@pytest.mark.parametrize("text_backbone", ["robustmm/tiny-bert", "robustmm/tiny-clip"])
def test_without_proxies_only_the_class_token_has_maps(text_backbone):
    X, y = frame_with_holes()
    options = {"use_proxy": False, "text_backbone": text_backbone}
    plain = small(CMPTClassifier, **options).fit(X, y)
    assert plain.attention_maps(X)["token"].unique().tolist() == ["class"]


def test_words_that_are_cut_off_have_no_lines():
    X, y = frame_with_holes()
    short = small(CMPTClassifier, max_text_length=5).fit(X, y)
    maps = short.attention_maps(X)
    texts = maps[(maps["modality"] == "text") & (maps["token"] == "class")]
    assert texts.groupby("row").size().max() == 3


def test_unusable_looks_at_attention_are_named(fitted):
    X, _ = frame_with_holes()
    with pytest.raises(NotFittedError):
        CMPTClassifier().attention_maps(X)
    with pytest.raises(ValueError, match=r"layer must be in \[-4, 3\], got 4"):
        fitted.attention_maps(X, layer=4)
    with pytest.raises(TypeError, match=r"layer must be an integer, got 'last'"):
        fitted.attention_maps(X, layer="last")
    nothing = X.iloc[:2].assign(image=None, text=None)
    with (
        pytest.warns(UserWarning, match="neither image nor text"),
        pytest.raises(ValueError, match="must have an image or a text"),
    ):
        fitted.attention_maps(nothing)


# Baselines and the same model without its proxies --------------------------------


def test_without_proxies_the_sum_lacks_them_and_nothing_else():
    X, y = frame_with_holes(18)
    clf = small(CMPTClassifier).fit(X, y)
    twin = clf.without_proxies()
    complete = X.notna().all(axis=1).to_numpy()
    with_them, without = clf.transform(X), twin.transform(X)
    np.testing.assert_array_equal(with_them[complete], without[complete])
    assert (np.abs(with_them - without)[~complete].max(axis=1) > 1e-3).all()
    np.testing.assert_array_equal(clf.transform(X), with_them)
    assert twin.net_.module_.head.weight is clf.net_.module_.head.weight
    assert twin.predict(X).shape == (18,)
    with pytest.raises(ValueError, match="cannot be saved"):
        pickle.dumps(twin)
    pickle.dumps(clf)
    with pytest.raises(ValueError, match="use_proxy must be True"):
        small(CMPTClassifier, use_proxy=False).fit(X, y).without_proxies()


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_placeholders_are_read_in_the_place_of_missing_cells(dropout):
    X, y = frame_with_holes(18)
    options = {"use_proxy": False, "modality_dropout": dropout}
    clf = small(CMPTClassifier, missing="placeholder", **options).fit(X, y)
    white = Image.new("RGB", (48, 48), "white")
    filled = X.copy()
    filled["image"] = [white if i is None else i for i in X["image"]]
    # A blank text is missing, so only the missing images can be put in.
    has_text = X["text"].notna().to_numpy()
    np.testing.assert_allclose(
        clf.transform(filled[has_text]), clf.transform(X[has_text]), atol=1e-5
    )
    skipped = small(CMPTClassifier, **options).fit(X, y)
    features = [c.transform(X)[~has_text] for c in (clf, skipped)]
    assert not np.allclose(*features, atol=1e-2)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), rtol=1e-6)


def test_placeholders_leave_nothing_to_a_proxy():
    with pytest.raises(ValueError, match="use_proxy must be False with missing"):
        small(CMPTClassifier, missing="placeholder").fit(*frame_with_holes(6))
    with pytest.raises(ValueError, match="missing must be one of"):
        small(CMPTClassifier, missing="zero").fit(*frame_with_holes(6))


@pytest.mark.parametrize("adapter", ["lora", "dora", "vera"])
def test_predictions_are_those_of_merged_weights(adapter):
    X, y = frame_with_holes()
    clf = small(CMPTClassifier, adapter=adapter, max_epochs=2, lr=0.01).fit(X, y)
    module, merged = clf.net_.module_, clf.predict_proba(X)
    adapters = [a for s in module.backbone.streams.values() for a in s.adapters()]
    assert adapters
    assert all(a.merged is not None for a in adapters)
    opened = pickle.loads(pickle.dumps(clf))
    np.testing.assert_allclose(opened.predict_proba(X), merged, rtol=0, atol=1e-6)
    module.train()
    assert all(a.merged is None for a in adapters)
    np.testing.assert_allclose(clf.predict_proba(X), merged, rtol=0, atol=1e-5)


# Encoders of different width ------------------------------------------------------


def build_mapped(narrow, width=48, **options):
    backbone = Backbone.join(
        image=load_backbone("robustmm/tiny-clip", streams=("image",)),
        text=load_backbone(narrow, streams=("text",)),
    )
    proxies = initial_proxies(backbone, None)
    options = {"proxies": proxies, "width": width} | options
    return CMPTModule(backbone, 3, **DEFAULTS | options)


def trained(module):
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("width", [8, 48, 200])
def test_maps_start_with_the_lengths_of_tokens(narrow, width):
    module = build_mapped(narrow, width)
    for name, linear in module.projections.items():
        weight = linear.weight.detach()
        square = weight @ weight.T if width < linear.in_features else weight.T @ weight
        torch.testing.assert_close(square, torch.eye(len(square)), atol=1e-5, rtol=0)
        assert not linear.bias.any(), name


def test_class_tokens_and_proxies_are_mapped_by_their_own_encoder_s(narrow):
    module, batch = perturb(build_mapped(narrow)), batch_of(PRESENT)
    data = {k: v for k, v in batch.items() if k != "present"}
    mapped = module._encode(torch.ones(4, 2, dtype=torch.bool), data)
    for i, name in enumerate(("image", "text")):
        stream, linear = module.backbone[name], module.projections[name]
        tokens = stream.embed(**data).insert("proxy", module.proxies[name])
        tokens = stream.run(tokens, keep=("proxy",))
        raw = stream.pool(tokens), stream.norm(tokens["proxy"])[:, 0]
        for found, token in zip(mapped, raw, strict=True):
            expected = token @ linear.weight.T + linear.bias
            torch.testing.assert_close(found[:, i], expected, atol=1e-5, rtol=1e-5)


def test_proxies_imitate_mapped_tokens(narrow):
    module, batch = perturb(build_mapped(narrow)).train(), batch_of(PRESENT)
    data = {k: v for k, v in batch.items() if k != "present"}
    classes, proxies = module._encode(batch["present"], data)
    assert classes.shape == proxies.shape == (4, 2, 48)
    rows = [0, 3]
    expected = F.mse_loss(proxies[rows], classes[rows][:, [1, 0]], reduction="none")
    _, penalty = module(**batch)
    torch.testing.assert_close(penalty, 0.2 * expected.mean(dim=(0, 2)).sum())


@pytest.mark.parametrize("options", [{}, {"proxies": None}], ids=str)
def test_a_missing_cell_is_worth_nothing_to_the_maps(narrow, options):
    module, batch = perturb(build_mapped(narrow, **options)), batch_of(PRESENT)
    logits = module(**batch)
    other = batch_of(PRESENT, seed=9)
    changed = {"pixel_values": batch["pixel_values"].clone()}
    changed["pixel_values"][1] = other["pixel_values"][1]
    torch.testing.assert_close(module(**batch | changed), logits)
    # Nor does the map of what is not there take part, whose bias could.
    with torch.no_grad():
        module.projections["image"].weight.add_(1.0)
        module.projections["image"].bias.add_(1.0)
    torch.testing.assert_close(module(**batch)[1], logits[1])
    assert (module(**batch)[[0, 2, 3]] != logits[[0, 2, 3]]).any(dim=1).all()


@pytest.mark.parametrize("options", [{}, {"detach_target": True}], ids=str)
def test_every_parameter_of_the_maps_moves(narrow, options):
    module, batch = perturb(build_mapped(narrow, **options)).train(), batch_of(PRESENT)
    logits, penalty = module(**batch)
    (logits.square().sum() + penalty).backward()
    for name, p in trained(module).items():
        assert p.grad is not None, name
        assert p.grad.any(), name


@pytest.mark.parametrize("detach", [False, True])
def test_constant_targets_are_constant_behind_the_map(narrow, detach):
    module = perturb(build_mapped(narrow, detach_target=detach)).train()
    present, batch = torch.ones(2, 2, dtype=torch.bool), batch_of([[True, True]] * 2)
    data = {k: v for k, v in batch.items() if k != "present"}
    classes, proxies = module._encode(present, data)
    guesses = proxies.detach().requires_grad_(True)
    module._misalignment(classes, guesses, present).backward()
    assert guesses.grad.any()
    grads = [p.grad is None for p in module.projections.parameters()]
    assert grads == [detach] * 4


def test_counts_of_maps(narrow):
    of_maps = (128 * 48 + 48) + (32 * 48 + 48)
    names = trained(build_mapped(narrow))
    assert sum(p.numel() for n, p in names.items() if "projections" in n) == of_maps
    X, y = frame_with_holes(8)
    fitted = small(CMPTClassifier, text_backbone=narrow, width=48).fit(X, y)
    adapters = [n for n in names if n.endswith((".down", ".up"))]
    low_rank = sum(names[n].numel() for n in adapters)
    expected = low_rank + (128 + 32) + of_maps + 2 * (48 + 1)
    assert fitted.n_trainable_parameters_ == expected


def test_without_a_width_nothing_is_mapped():
    plain, mapped = build(), build(width=128)
    assert plain.projections is None
    extra = mapped.state_dict().keys() - plain.state_dict().keys()
    ends = [f"{m}.{part}" for m in ("image", "text") for part in ("weight", "bias")]
    assert extra == {f"projections.{end}" for end in ends}
    assert plain.head.in_features == 128


def test_full_size_clip_alone_with_a_width():
    backbone = full_size_clip()
    proxies = {"image": torch.empty(1, 768), "text": torch.empty(1, 512)}
    with torch.device("meta"):
        module = CMPTModule(
            backbone, 2, **DEFAULTS | {"proxies": proxies, "width": 512}
        )
    low_rank = 12 * 4 * 2 * (768 + 512)
    maps = 768 * 512 + 512 + 512 * 512 + 512
    assert count(module) == low_rank + 768 + 512 + maps + 2 * 513
    assert count(module, "projections") == maps


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"early_stopping": True, "validation_fraction": 0.3},
        {"missing": "placeholder", "use_proxy": False},
        {"modality_dropout": 1.0, "detach_target": True},
        {"head_init": "random", "head_lr": None},
    ],
    ids=str,
)
def test_encoders_of_different_width_train_save_and_open(narrow, tmp_path, option):
    X, y = frame_with_holes(18)
    options = {"text_backbone": narrow, "width": 16, "lr": 1e-2} | option
    clf = small(CMPTClassifier, **options).fit(X, y)
    start = small(CMPTClassifier, **options | {"lr": 1e-12}).fit(X, y)
    for name, p in clf.net_.module_.projections.named_parameters():
        assert not torch.equal(p, start.net_.module_.projections.get_parameter(name))
    assert clf.transform(X).shape == (18, 16)
    expected = clf.predict_proba(X)
    assert np.isfinite(expected).all()
    save(clf, tmp_path / "model")
    for again in (load(tmp_path / "model"), pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(again.predict_proba(X), expected)


@pytest.mark.parametrize(("head_lr", "rate"), [(3e-3, 3e-3), (None, 2e-2)])
def test_maps_learn_at_the_rate_of_the_head(narrow, head_lr, rate):
    options = {"lr": 2e-2, "head_lr": head_lr, "lr_schedule": "constant", "warmup": 0.0}
    clf = small(CMPTClassifier, text_backbone=narrow, width=16, **options)
    clf.fit(*frame_with_holes(12))
    rates = {
        id(p): group["initial_lr"]
        for group in clf.net_.optimizer_.param_groups
        for p in group["params"]
    }
    named = {n: rates[id(p)] for n, p in trained(clf.net_.module_).items()}
    assert {v for n, v in named.items() if n.startswith("projections")} == {rate}
    assert {v for n, v in named.items() if n.startswith("backbone")} == {2e-2}
    assert clf.history_["lr"].tolist() == [2e-2]


def test_several_labels_and_maps(narrow):
    X, y = frame_with_holes(18)
    several = np.stack([y == y[0], np.arange(18) % 2], axis=1).astype(int)
    clf = small(CMPTClassifier, text_backbone=narrow, width=16).fit(X, several)
    assert clf.predict_proba(X).shape == (18, 2)


def test_three_encoders_of_two_widths(narrow):
    X, y = frame_with_holes(14)
    tones = [(16000, np.full(800, k, "int16")) for k in range(14)]
    X = X.assign(audio=pd.Series(tones, index=X.index)).astype(object)
    X.iloc[::2, 2] = None
    options = {"modalities": THREE, "text_backbone": narrow, "width": 24}
    clf = small(CMPTClassifier, **options).fit(X, y)
    here = X.notna().any(axis=1).to_numpy()
    assert clf.transform(X[here]).shape[1] == 24
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.transform(X[here]), clf.transform(X[here]))


@pytest.mark.slow
def test_maps_are_exported(narrow, tmp_path):
    pytest.importorskip("onnxscript", reason='pip install "robustmm[export]"')
    runtime = pytest.importorskip("onnxruntime", reason='"robustmm[export]"')
    X, y = frame_with_holes(14)
    clf = small(CMPTClassifier, text_backbone=narrow, width=16, lr=1e-2).fit(X, y)
    clf.to_onnx(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    backbone = clf.net_.module_.backbone
    data = clf._dataset(backbone, clf._check_X(X, reset=False))
    batch, _ = clf._collate(backbone)([data[i] for i in range(len(X))])
    batch |= batch["pictures"].pixels()
    feed = {i.name: batch[i.name].numpy() for i in session.get_inputs()}
    (found,) = session.run(None, feed)
    np.testing.assert_allclose(found, clf.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, r"width must be in \[1, inf\), got 0"),
        (True, "width must be an integer, got True"),
        ("auto", "width must be an integer, got 'auto'"),
        (12.0, "width must be an integer, got 12.0"),
    ],
)
def test_unusable_widths_are_named(value, error):
    with pytest.raises((TypeError, ValueError), match=error):
        small(CMPTClassifier, width=value).fit(*frame_with_holes(6))


# Other modalities ---------------------------------------------------------------------

THREE = ("image", "text", "audio")
HOLES = [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def build_three(**options):
    backbone = Backbone.join(
        image=load_backbone("robustmm/tiny-clip", streams=("image",)),
        text=load_backbone("robustmm/tiny-bert", streams=("text",)),
        audio=load_backbone("robustmm/tiny-ast"),
    )
    proxies = initial_proxies(backbone, None)
    return CMPTModule(backbone, 3, **DEFAULTS | {"proxies": proxies} | options)


def batch_of_three(present=HOLES):
    present = torch.tensor(present, dtype=torch.bool)
    batch = batch_of(present[:, :2].tolist())
    shape = load_backbone("robustmm/tiny-ast")["audio"].shape
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(len(present), *shape, generator=generator)
    return batch | {"input_values": values, "present": present}


def parts_of(module, batch):
    """Class tokens by modality and proxies by ordered pair, of rows without holes."""
    data = {k: v for k, v in batch.items() if k != "present"}
    classes, proxies = module._encode(torch.ones_like(batch["present"]), data)
    pairs = [(m, n) for m in range(3) for n in range(3) if n != m]
    return classes, {pair: proxies[:, i] for i, pair in enumerate(pairs)}


def test_a_missing_one_of_three_is_the_mean_of_what_the_others_guess():
    module, batch = perturb(build_three()), batch_of_three()
    classes, proxies = parts_of(module, batch)
    found = module.features(**batch)
    for row, present in enumerate(batch["present"].tolist()):
        here = [m for m in range(3) if present[m]]
        expected = sum(classes[row, m] for m in here)
        for n in set(range(3)) - set(here):
            expected = expected + sum(proxies[m, n][row] for m in here) / len(here)
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=0)


def test_each_pair_of_three_is_aligned_over_the_rows_that_have_both():
    module, batch = perturb(build_three()).train(), batch_of_three()
    classes, proxies = parts_of(module, batch)
    expected = 0.0
    for (m, n), guess in proxies.items():
        rows = batch["present"][:, m] & batch["present"][:, n]
        expected += F.mse_loss(guess[rows], classes[rows, n])
    _, penalty = module(**batch)
    torch.testing.assert_close(penalty, 0.2 * expected)
    module.align_scale = build_three(align_reduction="mean").align_scale
    torch.testing.assert_close(module(**batch)[1], 0.2 * expected / 6)
    assert module(**batch_of_three([[1, 0, 0], [0, 1, 0]]))[1] == 0


def test_every_proxy_of_three_is_trained():
    module, batch = perturb(build_three()).train(), batch_of_three(HOLES[:4])
    logits, penalty = module(**batch)
    (logits.square().sum() + penalty).backward()
    for name, proxy in module.proxies.items():
        assert proxy.shape == (2, 128)
        assert (proxy.grad.abs().sum(dim=1) > 0).all(), name


def test_a_fit_on_three_modalities_predicts_every_pattern():
    X, y = frame_with_holes(14)
    tones = [(16000, np.full(800, k, "int16")) for k in range(14)]
    X = X.assign(audio=pd.Series(tones, index=X.index)).astype(object)
    X.iloc[::2, 2] = None
    clf = small(CMPTClassifier, modalities=THREE).fit(X, y)
    here = X.notna().any(axis=1).to_numpy()
    assert np.isfinite(clf.predict_proba(X[here])).all()
    assert {"audio_missing", "image+audio_missing"} <= clf.missing_report_.keys()
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.transform(X[here]), clf.transform(X[here]))


def full_size_audio_video():
    """AST and CLIP's ViT-B/16 on frames, without memory for their weights."""
    from transformers import ASTConfig, ASTModel, CLIPVisionConfig, CLIPVisionModel

    from robustmm.backbones import ASTStream, frames_of
    from robustmm.backbones.clip import ClipImageStream

    vision = {"hidden_size": 768, "intermediate_size": 3072, "patch_size": 16}
    vision |= {"num_hidden_layers": 12, "num_attention_heads": 12}
    with torch.device("meta"):
        audio, images = (
            ASTModel(ASTConfig()),
            CLIPVisionModel(CLIPVisionConfig(**vision)),
        )
        video = frames_of(ClipImageStream(getattr(images, "vision_model", images)))
    streams = {"audio": ASTStream(audio), "video": video}
    return Backbone(streams, sources={}, identities={})


# Table 7: classes, and learnable millions at ranks 1, 2 and 4.
TABLE_7 = {"CREMA-D": (6, 0.303, 0.598), "Kinetics-Sound": (31, 0.322, 0.617)}


@pytest.mark.parametrize("name", TABLE_7)
def test_counts_of_table_7(name):
    n_classes, *printed = TABLE_7[name]
    backbone = full_size_audio_video()
    frozen = sum(p.numel() for p in backbone.parameters())
    assert frozen == 86_187_264 + 85_799_424
    for rank, millions in zip((2, 4), printed, strict=True):
        options = {"rank": rank, "proxies": initial_shapes(backbone)}
        with torch.device("meta"):
            module = CMPTModule(backbone.copy(), n_classes, **DEFAULTS | options)
        learned = sum(p.numel() for p in module.parameters() if p.requires_grad)
        assert learned == 147_456 * rank + 769 * n_classes + 2 * 768
        # The printed ones have two vectors more, of which the paper says nothing.
        assert round((learned + 2 * 768) / 1e6, 3) == millions


def initial_shapes(backbone):
    return {name: torch.empty(1, backbone[name].width) for name in backbone.streams}


def test_the_papers_audio_video_model_has_its_recipe():
    recipe = CMPTClassifier.PAPER["audio-video"]
    clf = CMPTClassifier(**recipe)
    clf._check_parameters()
    assert (clf.lr, clf.batch_size, clf.max_epochs) == (5e-5, 4, 100)
    assert clf.warmup * clf.max_epochs == 5


def test_modalities_of_cmpt_are_two_or_more_with_an_encoder_each():
    X, y = frame_with_holes(4)
    with pytest.raises(ValueError, match="modalities must be two or more"):
        CMPTClassifier(modalities=("text",)).fit(X, y)
    with pytest.raises(ValueError, match="audio_backbone must name an encoder"):
        CMPTClassifier(modalities=("image", "audio")).fit(X, y)
