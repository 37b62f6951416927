"""Pretrain the embedded backbone of sounds, ``robustmm/tiny-ast``, from scratch.

It is for learning the API, for tests and for offline notebooks: it has heard nothing
but the sounds that :func:`robustmm.datasets.make_clips` is made of, and knows no
recording. No class of make_clips is used: each training sound has a voice, a pitch, a
glide and a pace that are drawn evenly and independently, and the class token learns to
name the four, with the mean of the filter bank over time, which keeps more of a sound.

Run ``python examples/pretrain_tiny_ast.py --out DIR``: some minutes on one core.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm import tqdm
from transformers import ASTConfig, ASTModel

from robustmm.data import AudioTransform
from robustmm.datasets import make_clips
from robustmm.datasets.synthesis import SOUND_FIELDS, make_sounds

WIDTH, LAYERS, HEADS, PATCH = 128, 4, 4, 16
N_MELS, N_FRAMES = 64, 128
BATCH, LR = 64, 1e-3
EMBEDDED = Path(__file__).parent.parent / "robustmm" / "backbones" / "embedded"


def draw_sounds(n_samples, seed):
    """Return sounds (N, 16000) and, of each field, the number of its value (N,)."""
    rng = np.random.default_rng(seed)
    numbers = {f: rng.integers(len(v), size=n_samples) for f, v in SOUND_FIELDS.items()}
    names = {f: np.array(list(SOUND_FIELDS[f]))[of] for f, of in numbers.items()}
    fields = {f: torch.from_numpy(of) for f, of in numbers.items()}
    return make_sounds(names, rng), fields


def banks(transform, sounds):
    """Return the filter banks of sounds, (N, frames, mels)."""
    made = [transform(sound.astype(np.float32) / 32768) for sound in sounds]
    return torch.from_numpy(np.stack(made))


def fit_transform(sounds):
    """Return the transform with the mean and the deviation of these sounds."""
    plain = AudioTransform(n_mels=N_MELS, n_frames=98, mean=0.0, std=0.5)
    values = banks(plain, sounds)
    mean, std = (round(float(v), 4) for v in (values.mean(), values.std()))
    return AudioTransform(n_mels=N_MELS, n_frames=N_FRAMES, mean=mean, std=std)


def build_model():
    """Return the model, with random weights."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        patch_size=PATCH,
        frequency_stride=PATCH,
        time_stride=PATCH,
        max_length=N_FRAMES,
        num_mel_bins=N_MELS,
    )
    model = ASTModel(config)
    with torch.no_grad():  # zeros in a fresh model
        for parameter in (
            model.embeddings.cls_token,
            model.embeddings.distillation_token,
            model.embeddings.position_embeddings,
        ):
            parameter.normal_(std=0.02)
    return model


def train(model, values, fields, steps):
    heads = nn.ModuleDict({f: nn.Linear(WIDTH, len(SOUND_FIELDS[f])) for f in fields})
    heads["spectrum"] = nn.Linear(WIDTH, N_MELS)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=steps, pct_start=0.1
    )
    bar = tqdm(range(steps), desc="tiny-ast", mininterval=5)
    for _ in bar:
        rows = torch.randint(len(values), (BATCH,))
        token = model(values[rows]).last_hidden_state[:, 0]
        loss = F.mse_loss(heads["spectrum"](token), values[rows].mean(dim=1))
        for name, target in fields.items():
            loss = loss + F.cross_entropy(heads[name](token), target[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def save(model, transform, folder):
    """Write config, half-precision weights and feature extractor."""
    model.half().save_pretrained(folder)
    model.float()
    settings = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "sampling_rate": transform.sampling_rate,
        "num_mel_bins": transform.n_mels,
        "max_length": transform.n_frames,
        "do_normalize": True,
        "mean": transform.mean,
        "std": transform.std,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text)


@torch.no_grad()
def tokens_of(model, values):
    parts = [model(part).last_hidden_state[:, 0] for part in values.split(250)]
    return torch.cat(parts).numpy()


def probe(model, transform, n_classes, n_train=2000, n_test=2000):
    """Test accuracy of a logistic regression on class tokens, on clips never heard."""
    df, y = make_clips(n_train + n_test, n_classes, random_state=12345)
    features = tokens_of(model, banks(transform, [cell[1] for cell in df["audio"]]))
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    head.fit(features[:n_train], y[:n_train])
    return head.score(features[n_train:], y[n_train:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--sounds", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    sounds, fields = draw_sounds(args.sounds, seed=0)
    transform = fit_transform(sounds[:2000])
    model = build_model()
    train(model, banks(transform, sounds), fields, args.steps)
    save(model.eval(), transform, args.out / "tiny-ast")
    print(f"{time.perf_counter() - start:.0f} s")
    for n_classes in (6, 8):
        score = probe(model, transform, n_classes)
        print(f"{n_classes} classes, 2000 rows to fit, 2000 to score: {score:.3f}")


if __name__ == "__main__":
    main()
