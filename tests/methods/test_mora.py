"""MoRA: counts, the merge, constants run once, and states computed once per cell."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from clip_cases import clip_batch
from contract import frame_with_holes, small
from sklearn.model_selection import GridSearchCV

from robustmm import MoRAClassifier, drop_modalities, load_backbone
from robustmm.backbones.prefix import FrozenResults
from robustmm.data import IMAGES, STATES, ByteCache, ImageTransform, preprocess
from robustmm.datasets import make_scenes
from robustmm.methods.mora import MoRAModule, adapted_layers

LAYERS = {"image": range(2, 4), "text": range(2, 4)}
PRESENT = [[True, True], [False, True], [True, False], [True, True], [False, True]]


def build(n_outputs=3, projections=("query", "value"), layers=LAYERS, **options):
    backbone = load_backbone("robustmm/tiny-clip")
    return MoRAModule(backbone, n_outputs, layers, projections, **options)


def batch_of(present, seed=0):
    """Random cells; white images and empty texts where one is missing."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor(present)
    ids = torch.randint(5, 60, (len(present), 7), generator=generator)
    ids[:, 0], ids[:, -1] = 2, 3
    mask = torch.ones_like(ids)
    pixels = torch.randn(len(present), 3, 48, 48, generator=generator)
    pixels[~present[:, 0]] = 1.0
    ids[~present[:, 1]] = torch.tensor([2, 3, 0, 0, 0, 0, 0])
    mask[~present[:, 1], 2:] = 0
    return {
        "pixel_values": pixels,
        "input_ids": ids,
        "attention_mask": mask,
        "present": present,
    }


def perturb(module, seed=1, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(size * noise)
    return module.eval()


def plain_features(backbone, batch):
    """Every row through both encoders, as the paper has it."""
    inputs = {name: value for name, value in batch.items() if name != "present"}
    streams = [backbone[name] for name in ("image", "text")]
    return torch.cat(
        [s.projection(s.pool(s.run(s.embed(**inputs)))) for s in streams], dim=1
    )


def count_rows(module, **wanted):
    """Record the batch size of every run of each encoder's prefix or suffix."""
    sizes = {"image": [], "text": []}
    for name, found in sizes.items():
        stream = module.backbone[name]

        def counted(tokens, *args, _found=found, _run=stream.run, **kwargs):
            if all(kwargs.get(k) == v for k, v in wanted.items()):
                _found.append(len(tokens))
            return _run(tokens, *args, **kwargs)

        stream.run = counted
    return sizes


def test_features_are_those_of_all_rows_through_the_adapted_encoders():
    module = perturb(build())
    batch = batch_of(PRESENT)
    expected = plain_features(module.backbone, batch)
    torch.testing.assert_close(module.features(**batch), expected, atol=1e-5, rtol=0)
    frozen = plain_features(load_backbone("robustmm/tiny-clip"), batch)
    assert (expected - frozen).abs().max() > 1e-2
    torch.testing.assert_close(
        build(projections=()).features(**batch), frozen, atol=1e-5, rtol=0
    )


def test_a_missing_modality_is_run_once_and_after_merging_never_again():
    module = build().eval()
    sizes = count_rows(module, start=2)
    batch, blank = batch_of(PRESENT), batch_of([[False, False]])
    module(**batch)
    assert sizes == {"image": [4], "text": [5]}
    module.merge(**blank)
    assert sizes == {"image": [4, 1], "text": [5, 1]}
    for _ in range(2):
        module(**batch)
    assert sizes == {"image": [4, 1, 3, 3], "text": [5, 1, 4, 4]}
    module(**batch_of([[False, True]] * 2))
    assert sizes == {"image": [4, 1, 3, 3], "text": [5, 1, 4, 4, 2]}
    module.train()
    module(**batch)
    assert sizes == {"image": [4, 1, 3, 3, 4], "text": [5, 1, 4, 4, 2, 5]}


def test_merging_twice_or_training_in_between_changes_nothing():
    module = perturb(build())
    batch, blank = batch_of(PRESENT), batch_of([[False, False]])
    with torch.no_grad():
        plain = module(**batch)
        results = []
        for _ in range(2):
            for _ in range(2):
                module.merge(**blank)
                results.append(module(**batch))
            module.train().eval()
            torch.testing.assert_close(module(**batch), plain, atol=0, rtol=0)
    for merged in results:
        torch.testing.assert_close(merged, results[0], atol=0, rtol=0)
        torch.testing.assert_close(merged, plain, atol=1e-5, rtol=0)


def test_a_call_leaves_nothing_on_the_module():
    module = perturb(build())
    module.merge(**batch_of([[False, False]]))
    kept = {name: dict(vars(part)) for name, part in module.named_modules()}
    constants = dict(module.constants)
    with torch.inference_mode():
        module(**batch_of(PRESENT))
    assert {name: vars(part) for name, part in module.named_modules()} == kept
    assert module.constants == constants


def test_the_gradient_of_the_constant_is_summed_over_its_rows():
    grads = []
    for expand in (False, True):
        torch.manual_seed(0)
        module = build(dropout=0.0).train()
        batch = batch_of(PRESENT)
        if expand:
            features = plain_features(module.backbone, batch)
        else:
            features = module.features(**batch)
        module.head(features).square().sum().backward()
        grads.append([p.grad for p in module.parameters() if p.requires_grad])
    for ours, plain in zip(*grads, strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-4)


ABLATIONS = [
    {"gram": "own"},
    {"gram": "identity"},
    {"gram": "learnable"},
    {"parametrization": "additive"},
    {"parametrization": "additive", "use_shared": False, "strength": 1.0},
    {"use_shared": False},
    {"use_specific": False},
    {"w0_residual": True},
    {"init": "identity"},
    {"projections": ("query", "key", "value", "out"), "n_layers": 1},
    {"position": "front"},
    {"position": "middle", "n_layers": 1},
]


@pytest.mark.parametrize("option", ABLATIONS, ids=str)
def test_ablations_train_merge_and_pickle(option):
    X, y = frame_with_holes(12)
    fitted = small(MoRAClassifier, lr=1e-2, **option).fit(X, y)
    merged = fitted.decision_function(X)
    assert np.isfinite(merged).all()
    module = fitted.net_.module_
    assert all(a.merged is not None for a in module.adapters.values())
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copy.decision_function(X), merged, atol=1e-5)
    module.train()
    assert all(a.merged is None for a in module.adapters.values())
    np.testing.assert_allclose(fitted.decision_function(X), merged, atol=1e-5)


def test_identity_start_is_the_frozen_model_to_the_tolerance():
    batch = batch_of(PRESENT)
    frozen = build(projections=()).eval().features(**batch)
    for option in ({}, {"parametrization": "additive"}, {"use_specific": False}):
        started = build(init="identity", **option).eval().features(**batch)
        assert (started - frozen).norm() < 2e-2 * frozen.norm()
    official = build().eval().features(**batch)
    assert (official - frozen).norm() > 0.1 * frozen.norm()


def test_all_shared_factors_at_zero_get_no_gradient():
    module = build().train()
    with torch.no_grad():
        for pair in module.pairs:
            for factor in pair.factors.values():
                factor.zero_()
    module(**batch_of(PRESENT)).square().sum().backward()
    for pair in module.pairs:
        assert all(not factor.grad.any() for factor in pair.factors.values())


def test_layers_are_paired_from_the_end(tmp_path):
    folder = save_clip(
        tmp_path, vision_layers=5, text_layers=3, width=(48, 32), image_size=32
    )
    X, y = frame_with_holes(8)
    fitted = small(MoRAClassifier, backbone=folder).fit(X, y)
    places = {place[:2] for place in fitted.net_.module_.adapters}
    assert places == {("image", 3), ("image", 4), ("text", 1), ("text", 2)}
    assert fitted.net_.module_.start == {"image": 3, "text": 1}
    with pytest.raises(ValueError, match=r"n_layers must be at most 3, .* got 4"):
        small(MoRAClassifier, backbone=folder, n_layers=4).fit(X, y)
    assert adapted_layers(12, 2, "middle") == range(5, 7)


# ----------------------------------------------------------------- states that are kept


def scores(X, y, **options):
    return small(MoRAClassifier, max_epochs=2, **options).fit(X, y).decision_function(X)


def test_states_change_no_number(tmp_path):
    X, y = frame_with_holes(16)
    without = scores(X, y, cache=None)
    STATES.clear()
    for cache in ("memory", "memory", tmp_path, str(tmp_path)):
        np.testing.assert_allclose(scores(X, y, cache=cache), without, atol=1e-5)
    assert list(tmp_path.rglob("*.npy"))


def test_a_model_opens_where_the_folder_of_its_cache_is_not(tmp_path):
    X, y = frame_with_holes(8)
    folder = tmp_path / "states"
    folder.mkdir()
    fitted = small(MoRAClassifier, cache=folder).fit(X, y)
    expected = fitted.decision_function(X)
    folder.rename(tmp_path / "moved")
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(copy.decision_function(X), expected, atol=1e-5)


def test_a_budget_too_small_for_all_states_changes_no_number(monkeypatch):
    X, y = frame_with_holes(16)
    without = scores(X, y, cache=None)
    STATES.clear()
    monkeypatch.setattr(STATES, "max_bytes", 60_000)
    np.testing.assert_allclose(scores(X, y), without, atol=1e-5)
    assert 0 < STATES.nbytes <= 60_000


def test_without_a_cache_nothing_is_kept():
    STATES.clear()
    X, y = frame_with_holes(8)
    small(MoRAClassifier, cache=None).fit(X, y).predict(X)
    assert len(STATES) == 0


@pytest.fixture
def decodes(monkeypatch):
    """Cells that were decoded, whatever for."""
    seen, original = [], preprocess.decode

    def spy(cell, *args):
        seen.append(cell)
        return original(cell, *args)

    monkeypatch.setattr(preprocess, "decode", spy)
    return seen


@pytest.mark.parametrize("in_folder", [False, True])
def test_states_are_looked_up_before_a_picture_is_made(decodes, tmp_path, in_folder):
    X, y = frame_with_holes(16)
    STATES.clear()
    IMAGES.clear()
    options = {"cache": tmp_path if in_folder else "memory"}
    first = scores(X, y, **options)
    assert decodes
    decodes.clear()
    with_no_pictures(tmp_path)
    np.testing.assert_array_equal(scores(X, y, **options), first)
    assert decodes == []
    np.testing.assert_allclose(scores(X, y, cache=None), first, atol=1e-5)


def with_no_pictures(folder):
    """Forget decoded images, not states."""
    IMAGES.clear()
    for file in folder.rglob("*.npy"):
        if np.lib.format.open_memmap(file, mode="r").dtype == np.uint8:
            file.unlink()


def test_a_lost_state_is_computed_from_a_picture_that_is_made_late(
    decodes, monkeypatch
):
    X, y = frame_with_holes(16)
    without = scores(X, y, cache=None)
    scores(X, y)
    decodes.clear()
    IMAGES.clear()
    # Known when the row was read, gone when the batch is computed.
    monkeypatch.setattr(ByteCache, "get", lambda self, key: None)
    monkeypatch.setattr(ByteCache, "__contains__", lambda self, key: True)
    np.testing.assert_allclose(scores(X, y), without, atol=1e-5)
    assert decodes


def test_a_table_larger_than_the_budget_finds_its_part(monkeypatch):
    X, y = make_scenes(32, n_classes=2, random_state=5)
    STATES.clear()
    small(MoRAClassifier, max_epochs=1).fit(X, y)
    whole = STATES.nbytes
    STATES.clear()
    monkeypatch.setattr(STATES, "max_bytes", whole // 4)
    counts, call = [0, 0], FrozenResults.__call__

    def counted(self, contents, device, compute, shape=None):
        def watched(rows):
            counts[1] += len(rows)
            return compute(rows)

        counts[0] += len(set(contents))
        return call(self, contents, device, watched, shape)

    monkeypatch.setattr(FrozenResults, "__call__", counted)
    small(MoRAClassifier, max_epochs=1).fit(X, y)
    counts[:] = [0, 0]
    small(MoRAClassifier, max_epochs=4).fit(X, y)
    asked, computed = counts
    assert 1 - computed / asked == pytest.approx(0.25, abs=0.08)
    assert STATES.nbytes <= whole // 4


def test_states_of_16_bits_are_half_as_large_and_nearly_the_same():
    X, y = frame_with_holes(16)
    STATES.clear()
    started = {"head_init": "random"}  # a probe would be kept beside states
    exact = scores(X, y, **started)
    whole = STATES.nbytes
    STATES.clear()
    cold = scores(X, y, state_precision="float16", **started)
    assert STATES.nbytes == whole // 2
    np.testing.assert_array_equal(
        scores(X, y, state_precision="float16", **started), cold
    )
    np.testing.assert_allclose(cold, exact, atol=0.02)
    assert not np.array_equal(cold, exact)
    np.testing.assert_array_equal(
        scores(X, y, **started), exact
    )  # no state of the other kind
    with pytest.raises(ValueError, match="state_precision must be one of"):
        scores(X, y, state_precision="float8")


@pytest.mark.parametrize(
    "in_folder", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_a_grid_decodes_and_encodes_each_cell_once(monkeypatch, tmp_path, in_folder):
    X, y = make_scenes(12, n_classes=2, random_state=987 + in_folder)
    X = drop_modalities(X, 0.5, "both", random_state=0)
    STATES.clear()
    counts = {"image": 0, "text": 0, "decoded": 0}
    decode, make = ImageTransform.__call__, MoRAClassifier._build_module

    def counted_decode(self, *args, **kwargs):
        counts["decoded"] += 1
        return decode(self, *args, **kwargs)

    def counted_module(self, *args, **kwargs):
        module = make(self, *args, **kwargs)
        for name, prefix in module.prefixes.items():

            def encode(batch, _name=name, _encode=prefix._encode):
                counts[_name] += len(next(iter(batch.values())))
                return _encode(batch)

            prefix._encode = encode
        return module

    monkeypatch.setattr(ImageTransform, "__call__", counted_decode)
    monkeypatch.setattr(MoRAClassifier, "_build_module", counted_module)
    estimator = small(MoRAClassifier, cache=tmp_path if in_folder else "memory")
    grid = {"rank": [1, 2, 4], "strength": [0.001, 0.01, 0.1]}
    grid = {"rank": [1, 2]} if in_folder else grid
    search = GridSearchCV(estimator, grid, cv=3).fit(X, y)
    search.predict(X)
    n_images, n_texts = X["image"].notna().sum(), X["text"].nunique()
    # One more of each: the white image and the empty text.
    assert counts == {
        "decoded": n_images,
        "image": n_images + 1,
        "text": n_texts + 1,
    }


@pytest.mark.parametrize("cache", ["elsewhere", 3, "Memory"])
def test_a_cache_that_is_none_is_refused(cache):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=f"cache must be .* folder, got {cache!r}"):
        small(MoRAClassifier, cache=cache).fit(X, y)


# ----------------------------------------------------------------------- the checkpoint


def save_clip(folder, vision_layers, text_layers, width, image_size, patch_size=16):
    """A random CLIP with the tokenizer of tiny-clip; returns its folder."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = load_backbone("robustmm/tiny-clip").tokenizer
    tower = {"num_attention_heads": 4}
    config = CLIPConfig(
        projection_dim=40,
        vision_config=tower
        | {
            "hidden_size": width[0],
            "intermediate_size": 64,
            "num_hidden_layers": vision_layers,
            "image_size": image_size,
            "patch_size": patch_size,
        },
        text_config=tower
        | {
            "hidden_size": width[1],
            "intermediate_size": 64,
            "num_hidden_layers": text_layers,
            "vocab_size": len(tokenizer),
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def logits_with_transformers(folder, X):
    """What a reader of the written folder computes, without this package's models."""
    from safetensors.torch import load_file
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

    model = CLIPModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    head = load_file(f"{folder}/head.safetensors")
    outputs = []
    for image, text in zip(X["image"], X["text"], strict=True):
        white = np.full((48, 48, 3), 255, np.uint8)
        pixels = processor(white if image is None else image, return_tensors="pt")
        tokens = tokenizer(text or "", return_tensors="pt")
        ids = {k: tokens[k] for k in ("input_ids", "attention_mask")}
        seen = model.vision_model(pixels["pixel_values"]).pooler_output
        read = model.text_model(**ids).pooler_output
        both = [model.visual_projection(seen), model.text_projection(read)]
        feature = torch.cat(both, dim=1)
        outputs.append(feature @ head["head.weight"].T + head["head.bias"])
    return torch.cat(outputs).detach().numpy()


@pytest.mark.parametrize("max_text_length", [None, 40])
def test_transformers_computes_the_same_from_the_written_folder(
    tmp_path, max_text_length
):
    X, y = frame_with_holes(9, n_classes=3)
    fitted = small(MoRAClassifier, lr=1e-2, max_text_length=max_text_length).fit(X, y)
    fitted.to_huggingface(tmp_path / "model")
    np.testing.assert_allclose(
        logits_with_transformers(tmp_path / "model", X),
        fitted.decision_function(X),
        atol=1e-5,
    )
    labels = json.loads((tmp_path / "model" / "labels.json").read_text())
    assert labels == {"classes": sorted(set(y)), "multilabel": False}


def test_writing_is_quiet(tmp_path, capfd):
    X, y = frame_with_holes(8)
    small(MoRAClassifier).fit(X, y).to_huggingface(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_merged_state_dict_differs_in_the_adapted_weights_only():
    X, y = frame_with_holes(9)
    fitted = small(MoRAClassifier).fit(X, y)
    from transformers import CLIPModel

    state = fitted.merged_state_dict()
    assert state.pop("head.weight").shape == (2, 256)
    assert state.pop("head.bias").shape == (2,)
    folder = "robustmm/backbones/embedded/tiny-clip"
    before = CLIPModel.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert set(state) == set(before)
    changed = {name for name in state if not torch.equal(state[name], before[name])}
    places = itertools.product(("vision", "text"), (2, 3), ("q", "v"))
    assert changed == {
        f"{tower}_model.encoder.layers.{i}.self_attn.{name}_proj.weight"
        for tower, i, name in places
    }


def test_changed_files_are_not_merged_into(tmp_path):
    folder = save_clip(tmp_path, 2, 2, (32, 32), 32)
    X, y = frame_with_holes(8)
    fitted = small(MoRAClassifier, backbone=folder).fit(X, y)
    save_clip(tmp_path, 2, 2, (32, 32), 32)
    with pytest.raises(ValueError, match="must be those of the training"):
        fitted.merged_state_dict()


# --------------------------------------------------------------------------- geometry


def test_modality_gap_is_the_geometry_of_class_means():
    X, y = frame_with_holes(18, n_classes=3)
    fitted = small(MoRAClassifier).fit(X, y)
    gap = fitted.modality_gap(X, y)
    assert list(gap.index) == sorted(set(y))
    embeddings = fitted.transform(X)
    frozen = load_backbone("robustmm/tiny-clip")
    name = gap.index[1]
    rows = y == name
    seen, read = (rows & X[c].notna().to_numpy() for c in ("image", "text"))
    assert (gap.loc[name, "n_images"], gap.loc[name, "n_texts"]) == (
        seen.sum(),
        read.sum(),
    )
    image, text = embeddings[seen, :128].mean(0), embeddings[read, 128:].mean(0)
    assert gap.loc[name, "distance"] == pytest.approx(np.linalg.norm(image - text))
    cosine = image @ text / np.linalg.norm(image) / np.linalg.norm(text)
    assert gap.loc[name, "angle"] == pytest.approx(np.degrees(np.arccos(cosine)))
    stream, tokenizer = frozen["text"], frozen.tokenizer
    before = [
        stream.projection(stream.pool(stream.run(stream.embed(input_ids=ids))))
        for ids in (
            tokenizer(t, return_tensors="pt")["input_ids"] for t in X["text"][read]
        )
    ]
    shift = embeddings[read, 128:] - torch.cat(before).detach().numpy()
    drift = np.linalg.norm(shift, axis=1).mean()
    assert gap.loc[name, "text_drift"] == pytest.approx(drift, rel=1e-4)
    assert (gap["image_drift_angle"] > 0).all()


def test_modality_gap_without_labels_or_without_a_class():
    X, y = frame_with_holes(12)
    fitted = small(MoRAClassifier).fit(X, y)
    predicted = fitted.modality_gap(X)
    assert predicted["n_images"].sum() == X["image"].notna().sum()
    one = fitted.modality_gap(X, np.full(12, y[0]))
    assert one.loc[y[0]].notna().all()
    assert one.drop(y[0])["distance"].isna().all()
    Y = np.stack([y == y[0], np.ones(12, bool)], axis=1).astype(int)
    both = small(MoRAClassifier).fit(X, Y).modality_gap(X, Y)
    assert both["n_texts"].tolist() == [
        (X["text"].notna() & (y == y[0])).sum(),
        X["text"].notna().sum(),
    ]


def test_modality_gap_leaves_the_generator_and_the_estimator_alone():
    X, y = frame_with_holes(9)
    fitted = small(MoRAClassifier).fit(X, y)
    state, scores_before = torch.get_rng_state(), fitted.decision_function(X)
    fitted.modality_gap(X)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(fitted.decision_function(X), scores_before)


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("projections", "query"),
        ("projections", ()),
        ("projections", ("query", "query")),
        ("projections", ("up",)),
        ("gram", "both"),
        ("position", "back"),
        ("init", "zeros"),
        ("parametrization", "dora2"),
        ("strength", 0.0),
        ("rank", 0),
        ("n_layers", 0),
    ],
)
def test_parameters_out_of_range_are_named(name, value):
    X, y = frame_with_holes(8)
    with pytest.raises((ValueError, TypeError), match=f"{name} must be "):
        small(MoRAClassifier, **{name: value}).fit(X, y)


def test_a_branch_is_needed():
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match="One of use_shared and use_specific"):
        small(MoRAClassifier, use_shared=False, use_specific=False).fit(X, y)


@pytest.mark.parametrize("name", ["robustmm/tiny-vilt", "robustmm/tiny-bert"])
def test_other_backbones_are_refused_by_name(name):
    X, y = frame_with_holes(8)
    with pytest.raises(ValueError, match=f"the two of CLIP, got '{name}', which"):
        small(MoRAClassifier, backbone=name).fit(X, y)


def test_loss_falls():
    X, y = frame_with_holes(48)
    history = small(MoRAClassifier, max_epochs=8, lr=5e-3).fit(X, y).history_
    assert history["train_loss"].iloc[-1] < 0.8 * history["train_loss"].iloc[0]


def test_full_size_counts():
    from transformers import CLIPConfig, CLIPModel

    from robustmm.backbones import Backbone
    from robustmm.backbones.clip import ClipImageStream, ClipTextStream

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(vision_config={"patch_size": 16}))
    total = sum(p.numel() for p in model.parameters())
    layers = {"image": adapted_layers(12, 2, "rear"), "text": range(10, 12)}
    for rank, expected in ((4, 61_440), (8, 112_640)):
        streams = {
            "image": ClipImageStream.of_clip(model),
            "text": ClipTextStream.of_clip(model),
        }
        backbone = Backbone(streams, sources={}, identities={}).copy()
        with torch.device("meta"):
            module = MoRAModule(
                backbone, 101, layers, ("query", "value"), rank=rank, strength=0.01
            )
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        head = 1024 * 101 + 101
        assert trained - head == expected
        if rank == 4:
            assert trained == 164_965
            assert round(100 * trained / total, 2) == 0.11


def test_modality_gap_of_unit_vectors_and_of_pairs():
    X, y = frame_with_holes(24)
    fitted = small(MoRAClassifier, lr=1e-1).fit(X, y)
    features = fitted.transform(X)
    width = features.shape[1] // 2
    image, text = features[:, :width], features[:, width:]
    complete = X.notna().all(axis=1).to_numpy() & (y == y[0])
    pairs = np.linalg.norm(image - text, axis=1)[complete].mean()
    gap = fitted.modality_gap(X, y, of="pairs").loc[y[0]]
    assert gap["distance"] == pytest.approx(pairs, rel=1e-5)
    assert gap["frozen_distance"] != pytest.approx(pairs, rel=1e-3)
    image, text = (e / np.linalg.norm(e, axis=1)[:, None] for e in (image, text))
    units = np.linalg.norm(image - text, axis=1)[complete].mean()
    gap = fitted.modality_gap(X, y, of="pairs", normalize=True).loc[y[0]]
    assert gap["distance"] == pytest.approx(units, rel=1e-5)
    there = [X[name].notna().to_numpy() & (y == y[0]) for name in ("image", "text")]
    means = [e[rows].mean(axis=0) for e, rows in zip((image, text), there, strict=True)]
    gap = fitted.modality_gap(X, y, normalize=True).loc[y[0]]
    assert gap["distance"] == pytest.approx(np.linalg.norm(means[0] - means[1]))
    with pytest.raises(ValueError, match="of must be one of"):
        fitted.modality_gap(X, y, of="rows")


# ---------------------------------------------------------------- spectra and joining


def test_spectra_are_those_of_gram_matrices_and_frozen_weights():
    X, y = frame_with_holes(12)
    fitted = small(MoRAClassifier, rank=3).fit(X, y)
    spectra = fitted.spectra().set_index(["layer", "modality", "matrix"])
    assert len(spectra) == 2 * 2 * 3 * 3  # layers, encoders, Gram and two weights
    adapter = fitted.net_.module_.adapters["text", 3, "value"]
    factor = adapter.pair.factors["text"].detach().numpy()
    gram = np.linalg.eigvalsh(factor @ factor.T)[::-1]
    found = spectra.loc[(3, "text", "gram"), "share"]
    np.testing.assert_allclose(found, gram / gram.sum(), rtol=1e-4)
    weight = load_backbone("robustmm/tiny-clip")["text"].linear(3, "value").weight
    values = np.linalg.svd(weight.detach().numpy(), compute_uv=False)
    found = spectra.loc[(3, "text", "value"), "share"]
    np.testing.assert_allclose(found, values[:3] / values.sum(), rtol=1e-4)
    with pytest.raises(ValueError, match="use_shared must be True"):
        small(MoRAClassifier, use_shared=False).fit(X, y).spectra()


@pytest.mark.parametrize("join", ["align", "fusion"])
def test_joined_embeddings_are_folded_into_an_exported_head(join):
    X, y = frame_with_holes(18)
    fitted = small(MoRAClassifier, join=join, max_epochs=2, lr=1e-2).fit(X, y)
    state = fitted.merged_state_dict()
    twin, module = copy.copy(fitted), fitted.net_.module_
    plain, _ = twin._evaluate(X, MoRAModule.embeddings)
    width = plain.shape[1] // 2
    assert fitted.transform(X).shape == (18, 2 * width if join == "align" else width)
    weight, bias = (state[f"head.{n}"].numpy() for n in ("weight", "bias"))
    logits, _ = fitted._evaluate(X)
    np.testing.assert_allclose(plain @ weight.T + bias, logits, atol=1e-4)
    assert all(p.requires_grad for p in module.join.parameters())
    gap = fitted.modality_gap(X, y)
    assert gap["distance"].notna().all()


def test_aligned_embeddings_start_as_they_are():
    options = {"use_shared": False, "random_state": 0}
    backbone = load_backbone("robustmm/tiny-clip")
    modules = [
        small(MoRAClassifier, join=join, **options)._build_module(backbone.copy(), 2)
        for join in ("concat", "align")
    ]
    batch = clip_batch()
    with torch.no_grad():
        first, second = (m.eval().features(**batch) for m in modules)
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="join must be one of"):
        small(MoRAClassifier, join="sum").fit(*frame_with_holes(6))
