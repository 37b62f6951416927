"""Pretrain the three embedded backbones from scratch, on drawn scenes.

``robustmm/tiny-clip``, ``robustmm/tiny-bert`` and ``robustmm/tiny-vilt`` are real
pretrained models in miniature. They are for learning the API, for tests and for
offline notebooks: they have seen nothing but the scenes of
:func:`robustmm.datasets.make_scenes` and know no photograph. No class label is used.

* tiny-clip: a picture finds its caption among those of the batch and the reverse; both
  towers also predict the words of the caption, which keeps more of the picture.
* tiny-bert: masked words. Masked words alone leave [CLS] poor, so [CLS] also finds the
  other half of the same caption in the batch, and predicts tiny-clip's text embedding.
* tiny-vilt: masked words, matching of picture and caption, and from the pooled output
  tiny-clip's two embeddings, sometimes with a white picture or an empty text.

Run ``python examples/pretrain_embedded.py --out DIR``.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from tqdm import tqdm
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViltConfig,
    ViltModel,
)

from robustmm.datasets import make_scenes

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
WIDTH, LAYERS, HEADS, IMAGE, PATCH = 128, 4, 4, 48, 8
LENGTHS = {"tiny-clip": 32, "tiny-bert": 64, "tiny-vilt": 40}
BATCH, LR = 64, 1e-3
STEPS = {"tiny-clip": 850, "tiny-bert": 250, "tiny-vilt": 600}
EMBEDDED = Path(__file__).parent.parent / "robustmm" / "backbones" / "embedded"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = """
a ab able ac ad age al ally am an ance and ant ap ar ard are ary as at ate ated ation b
be ble c ce ch ck com con d de ding e ea ed ee el em en ence ent er ere ers es ess est
et ex f ful g ge gh h he hi ho i ial ic ical id ide ie ier ies il im in ine ing ings ion
ions ir is ise ish ism ist it ity ive ize l la land le less li ll lo ly m ma man me ment
mo my n nd ne ness ng no nt o od ol om on one ong oo op or ore ory ot ou ough our ous
out ow p per pl pre pro q r ra re ri ro rs rt ry s se sh ship si so st su t ta te ted
ter th the ther ti ting tion to tr ts tt ty u ul um un up ur ure us ut v ve ver w ward
way wi wn x y z
"""
WORDS = """
about after all also an any are as at be because been before big black blue brown but by
can come could day did do down each even find first for from get girl give go good great
green had has have he her here him his how i if image in into is it its just know large
like little long look made make man many may me more most movie my near new no not now
of off old on one only or other our out over people photo picture red said same say see
she show small so some story such take than that the their them then there these they
thing think this time to two up us use very was water way we well were what when where
which white who will with woman word work world would year yellow you your
"""


def build_tokenizer(captions, max_length):
    """Split at spaces and punctuation; word pieces for words no caption has."""
    split = pre_tokenizers.BertPreTokenizer()
    seen = {w for c in captions for w, _ in split.pre_tokenize_str(c.lower())}
    pieces = {"##" + p for p in (*LETTERS, *PIECES.split())}
    rest = (
        seen
        | set(LETTERS)
        | set(PIECES.split())
        | set(WORDS.split())
        | set(".,;:!?'\"()-&%/$#+*=@")
    )
    names = [f"[{name.upper()}]" for name in SPECIAL]
    vocab = {w: i for i, w in enumerate([*names, *sorted(rest), *sorted(pieces)])}
    raw = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(lowercase=True)
    raw.pre_tokenizer = split
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", SPECIAL["cls"]), ("[SEP]", SPECIAL["sep"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        model_max_length=max_length,
        **{f"{name}_token": f"[{name.upper()}]" for name in SPECIAL},
    )


def build_models(vocab_size):
    """Return the three models, with random weights."""
    size = {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 4 * WIDTH,
        "hidden_act": "gelu",
    }
    view = {"image_size": IMAGE, "patch_size": PATCH}
    text = {
        "vocab_size": vocab_size,
        "max_position_embeddings": LENGTHS["tiny-clip"],
        "pad_token_id": SPECIAL["pad"],
        "bos_token_id": SPECIAL["cls"],
        "eos_token_id": SPECIAL["sep"],
    }
    clip = CLIPConfig(
        text_config={**size, **text, "projection_dim": WIDTH},
        vision_config={**size, **view, "projection_dim": WIDTH},
        projection_dim=WIDTH,
    )
    words = {"vocab_size": vocab_size, "pad_token_id": SPECIAL["pad"]}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = BertConfig(
        **size, **words, **off, max_position_embeddings=LENGTHS["tiny-bert"]
    )
    vilt = ViltConfig(
        **size,
        **words,
        **view,
        **off,
        max_position_embeddings=LENGTHS["tiny-vilt"],
    )
    return {
        "tiny-clip": CLIPModel(clip),
        "tiny-bert": BertModel(bert),
        "tiny-vilt": ViltModel(vilt),
    }


def save(name, model, captions, out):
    """Write config, half-precision weights, tokenizer and image processor."""
    folder = out / name
    model.half().save_pretrained(folder)
    model.float()
    build_tokenizer(captions, LENGTHS[name]).save_pretrained(folder)
    if name == "tiny-bert":
        return
    kind = {"tiny-clip": "CLIPImageProcessor", "tiny-vilt": "ViTImageProcessor"}[name]
    config = {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": IMAGE, "width": IMAGE},
        "resample": int(Image.Resampling.BICUBIC),
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text)


def load_scenes(n_samples, seed, tokenizer=None, n_classes=10):
    """Return pixels (N, 3, H, W) uint8, ids (N, T) long, labels and captions."""
    df, y = make_scenes(n_samples, n_classes, random_state=seed)
    size = (IMAGE, IMAGE)
    arrays = [np.asarray(i.resize(size, Image.Resampling.BICUBIC)) for i in df["image"]]
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    captions = df["text"].tolist()
    if tokenizer is None:
        tokenizer = build_tokenizer(captions, LENGTHS["tiny-clip"])
    batch = tokenizer(captions, padding="max_length", truncation=True)
    return pixels, torch.tensor(batch["input_ids"]), y.to_numpy(), captions


def normalize(pixels):
    return pixels.float().div_(127.5).sub_(1)


def trim(ids):
    return ids[:, : int((ids != SPECIAL["pad"]).sum(1).max())]


def clip_pooled(clip, pixels, ids):
    """Pooled image and text vectors, before the projections."""
    ids = trim(ids)
    image = clip.vision_model(pixel_values=normalize(pixels)).pooler_output
    mask = (ids != SPECIAL["pad"]).long()
    return image, clip.text_model(input_ids=ids, attention_mask=mask).pooler_output


def bert_states(bert, ids):
    mask = (ids != SPECIAL["pad"]).long()
    return bert(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, d)


def vilt_states(vilt, pixels, ids):
    """ViltModel's forward in a fixed order of patches, which it would shuffle."""
    parts = vilt.embeddings
    types = parts.token_type_embeddings.weight
    text = parts.text_embeddings(input_ids=ids) + types[0]
    patches = parts.patch_embeddings(normalize(pixels)).flatten(2).transpose(1, 2)
    image = torch.cat([parts.cls_token.expand(len(ids), -1, -1), patches], dim=1)
    image = image + parts.position_embeddings + types[1]
    mask = F.pad(ids == SPECIAL["pad"], (0, image.shape[1]))
    bias = torch.zeros(mask.shape).masked_fill(mask, -1e9)[:, None, None]
    states = torch.cat([text, image], dim=1)
    for layer in vilt.encoder.layer:
        states = layer(states, bias)[0]
    return vilt.layernorm(states)  # (B, T + 1 + patches, d)


def match_loss(a, b, scale):
    """Contrastive loss: each row of `a` finds its row of `b`, and the reverse."""
    scores = scale * F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
    target = torch.arange(len(a))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def words_loss(logits, ids):
    """Cross-entropy between predicted words and the words of the caption."""
    target = torch.zeros_like(logits).scatter_(1, ids, 1.0)
    target[:, : len(SPECIAL)] = 0
    target = target / target.sum(1, keepdim=True).clamp_min(1)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def mask_words(ids, rate=0.2):
    chosen = (torch.rand(ids.shape) < rate) & (ids >= len(SPECIAL))
    return ids.masked_fill(chosen, SPECIAL["mask"]), chosen


def masked_loss(head, states, ids, chosen):
    if not chosen.any():
        return states.sum() * 0
    return F.cross_entropy(head(states[chosen]), ids[chosen])


def halves(ids):
    """Cut every caption at a random word: two captions, each with [CLS] and [SEP]."""
    length = (ids != SPECIAL["pad"]).sum(1, keepdim=True)
    cut = (2 + torch.rand(len(ids), 1) * (length - 4)).long()  # in [2, length - 2)
    place = torch.arange(ids.shape[1])[None]
    first = torch.where(place < cut, ids, SPECIAL["pad"])
    first = torch.where(place == cut, SPECIAL["sep"], first)
    source = (place + cut - 1).clamp(max=ids.shape[1] - 1)
    second = torch.where(place + cut - 1 < length, ids.gather(1, source), 0)
    second[:, 0] = SPECIAL["cls"]
    return trim(first), trim(second)


def fit(name, parameters, loss_of, n_samples, steps, batch_size, lr):
    """Minimise ``loss_of(rows)`` with AdamW, warm-up and a cosine schedule."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=steps, pct_start=0.1
    )
    bar = tqdm(range(steps), desc=name, mininterval=5)
    for _ in bar:
        loss = loss_of(torch.randint(n_samples, (batch_size,)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def train_clip(clip, pixels, ids, steps):
    heads = nn.ModuleList(
        nn.Linear(WIDTH, clip.config.text_config.vocab_size) for _ in "ab"
    )

    def loss_of(rows):
        seen = pixels[rows]
        seen = seen.flip(-1) if torch.rand(()) < 0.5 else seen
        image, text = clip_pooled(clip, seen, ids[rows])
        match = match_loss(
            clip.visual_projection(image),
            clip.text_projection(text),
            clip.logit_scale.exp().clamp(max=50),
        )
        told = ids[rows]
        return (
            match + words_loss(heads[0](image), told) + words_loss(heads[1](text), told)
        )

    fit(
        "tiny-clip",
        [*clip.parameters(), *heads.parameters()],
        loss_of,
        len(ids),
        steps,
        BATCH,
        LR,
    )


def train_bert(bert, ids, target, steps):
    """`target` holds tiny-clip's text vectors, one per caption."""
    word, find = nn.Linear(WIDTH, bert.config.vocab_size), nn.Linear(WIDTH, WIDTH)
    guess = nn.Linear(WIDTH, target.shape[1])
    # [CLS] of a post-norm model is at first the same for all captions. Heads that read
    # its deviations only keep it from staying so for most of a short training.
    centre = nn.BatchNorm1d(WIDTH, affine=False)

    def loss_of(rows):
        full = trim(ids[rows])
        masked, chosen = mask_words(full)
        states = bert_states(bert, masked)
        first, second = (bert_states(bert, half)[:, 0] for half in halves(full))
        pooled = bert.pooler.dense(states[:, 0]).tanh()
        return (
            masked_loss(word, states, full, chosen)
            + 0.5 * match_loss(find(centre(first)), find(centre(second)), 10.0)
            + 2 * F.mse_loss(guess(centre(states[:, 0])), target[rows])
            + words_loss(word(centre(pooled)), full)
        )

    parts = nn.ModuleList([bert, word, find, guess, centre])
    fit("tiny-bert", list(parts.parameters()), loss_of, len(ids), steps, BATCH, LR / 2)


@torch.no_grad()
def spread_cls(bert, ids, spread=1 / 3):
    """Fold mean 0 and a wider spread of [CLS] into the last norm: heads learn faster.

    Not wider still, because the other rows move with it. The pooler's output stays.
    """
    (cls,) = in_batches(lambda i: (bert_states(bert, i)[:, 0],), trim(ids))
    mean, std = cls.mean(0), cls.std(0) / spread
    last, dense = bert.encoder.layer[-1].output.LayerNorm, bert.pooler.dense
    last.weight.div_(std)
    last.bias.sub_(mean).div_(std)
    dense.bias.add_(dense.weight @ mean)
    dense.weight.mul_(std)


def start_vilt(vilt, clip, bert):
    """Give ViLT the picture side of tiny-clip, its blocks, and tiny-bert's words."""
    parts, vision = vilt.embeddings, clip.vision_model
    parts.patch_embeddings.projection.weight.data = (
        vision.embeddings.patch_embedding.weight.data.clone()
    )
    parts.position_embeddings.data = vision.embeddings.position_embedding.weight.data[
        None
    ].clone()
    parts.cls_token.data = vision.embeddings.class_embedding.data[None, None].clone()
    words = parts.text_embeddings.word_embeddings.weight
    words.data = bert.embeddings.word_embeddings.weight.data.clone()
    for ours, theirs in zip(vilt.encoder.layer, vision.encoder.layers, strict=True):
        pairs = {
            ours.attention.attention.query: theirs.self_attn.q_proj,
            ours.attention.attention.key: theirs.self_attn.k_proj,
            ours.attention.attention.value: theirs.self_attn.v_proj,
            ours.attention.output.dense: theirs.self_attn.out_proj,
            ours.intermediate.dense: theirs.mlp.fc1,
            ours.output.dense: theirs.mlp.fc2,
            ours.layernorm_before: theirs.layer_norm1,
            ours.layernorm_after: theirs.layer_norm2,
        }
        for mine, source in pairs.items():
            mine.load_state_dict(source.state_dict())


def blank_some(pixels, ids, rate):
    """Make some pictures white and some texts empty; return what is still there."""
    draw = torch.rand(len(ids))
    no_image, no_text = draw < rate, draw > 1 - rate
    pixels, ids = pixels.clone(), ids.clone()
    pixels[no_image] = 255
    ids[no_text, 1] = SPECIAL["sep"]
    ids[no_text, 2:] = SPECIAL["pad"]
    return pixels, ids, torch.stack([~no_image, ~no_text], dim=1).float()


def train_vilt(vilt, pixels, ids, images, texts, steps):
    """`images`, `texts`: tiny-clip's vectors, the targets of the pooled output."""
    word = nn.Linear(WIDTH, vilt.config.vocab_size)
    fits, guess = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 2 * WIDTH)

    def loss_of(rows):
        swap = torch.rand(len(rows)) < 0.25
        told = torch.where(swap, rows.roll(1), rows)
        seen, full, present = blank_some(pixels[rows], trim(ids[told]), rate=0.1)
        masked, chosen = mask_words(full, rate=0.15)
        states = vilt_states(vilt, seen, masked)
        pooled = vilt.pooler(states)
        target = torch.stack([images[rows], texts[told]], dim=1)  # (B, 2, d)
        error = (guess(pooled).view_as(target) - target).square().mean(2)
        match = F.cross_entropy(fits(pooled), swap.long(), reduction="none")
        return (
            (error * present).sum() / present.sum()
            + 0.2 * (match * present.prod(1)).mean()
            + 0.5 * masked_loss(word, states[:, : full.shape[1]], full, chosen)
        )

    parts = nn.ModuleList([vilt, word, fits, guess])
    fit("tiny-vilt", list(parts.parameters()), loss_of, len(ids), steps, BATCH, LR)


@torch.no_grad()
def in_batches(function, *tensors):
    """Apply `function` to slices of the tensors; every result as one tensor."""
    results = [
        function(*part) for part in zip(*(t.split(250) for t in tensors), strict=True)
    ]
    return [torch.cat(column) for column in zip(*results, strict=True)]


def standardize(values):
    return (values - values.mean(0)) / values.std(0)


def probe(features, labels, n_train):
    """Test accuracy of a logistic regression on frozen features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
    model.fit(features[:n_train], labels[:n_train])
    return model.score(features[n_train:], labels[n_train:])


def probe_table(models, tokenizer, n_classes, n_train=2000, n_test=2000):
    """Accuracies of linear probes of all three models, on scenes never seen."""
    pixels, ids, labels, _ = load_scenes(n_train + n_test, 12345, tokenizer, n_classes)
    clip, bert, vilt = models.values()
    image, text = in_batches(lambda p, i: clip_pooled(clip, p, i), pixels, ids)
    cls, pooled = in_batches(
        lambda p, i: (bert_states(bert, i)[:, 0], vilt.pooler(vilt_states(vilt, p, i))),
        pixels,
        ids,
    )
    white, empty = torch.full_like(pixels, 255), blank_some(pixels, ids, 2.0)[1]
    (no_image,) = in_batches(
        lambda p, i: (vilt.pooler(vilt_states(vilt, p, i)),), white, ids
    )
    (no_text,) = in_batches(
        lambda p, i: (vilt.pooler(vilt_states(vilt, p, i)),), pixels, empty
    )
    rows = {
        "tiny-clip image": image,
        "tiny-clip text": text,
        "tiny-clip both": torch.cat([image, text], dim=1),
        "tiny-bert [CLS]": cls,
        "tiny-vilt complete": pooled,
        "tiny-vilt image missing": no_image,
        "tiny-vilt text missing": no_text,
    }
    return {k: probe(v.numpy(), labels, n_train) for k, v in rows.items()}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument(
        "--models",
        nargs="+",
        default=list(STEPS),
        choices=list(STEPS),
        help="what to train; the others are read from --out (default: all)",
    )
    parser.add_argument("--steps", type=int, help="steps of each model")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def train(name, models, pixels, ids, steps):
    clip, bert, vilt = models.values()
    torch.manual_seed(0)
    if name == "tiny-clip":
        return train_clip(clip, pixels, ids, steps)
    vectors = in_batches(lambda p, i: clip_pooled(clip, p, i), pixels, ids)
    images, texts = map(standardize, vectors)
    if name == "tiny-bert":
        train_bert(bert, ids, texts, steps)
        return spread_cls(bert, ids)
    start_vilt(vilt, clip, bert)
    return train_vilt(vilt, pixels, ids, images, texts, steps)


def main():
    args = parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    pixels, ids, _, captions = load_scenes(args.scenes, seed=0)
    tokenizer = build_tokenizer(captions, LENGTHS["tiny-clip"])
    models = build_models(len(tokenizer))
    for name, model in models.items():
        if name in args.models:
            train(name, models, pixels, ids, args.steps or STEPS[name])
            save(name, model.eval(), captions, args.out)
        else:
            model.load_state_dict(load_file(args.out / name / "model.safetensors"))
            model.eval()
    print(f"{time.perf_counter() - start:.0f} s")
    for n_classes in (6, 10):
        print(f"{n_classes} classes: 2000 rows to fit the probe, 2000 to score it")
        for name, score in probe_table(models, tokenizer, n_classes).items():
            print(f"  {name:24s} {score:.3f}")


if __name__ == "__main__":
    main()
