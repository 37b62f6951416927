"""Miniature folders laid out as the published data sets are."""

import csv
import json

import numpy as np
from media import film_bytes, sound_bytes, tone
from PIL import Image

FILMS = {
    "train": ["0000005", "0000008", "0000012"],
    "dev": ["0000417"],
    "test": ["0000439", "0001111"],
}
PLOTS = {"0000005": 2, "0000008": 1, "0000012": 0, "0000417": 3}
DISHES = {
    "train": ["apple_pie_1.jpg", "apple_pie_2.jpg", "fried_rice_7.jpg"],
    "val": ["fried_rice_8.jpg"],
    "test": ["apple_pie_0.jpg", "fried_rice_0.jpg"],
}
MEMES = {
    "train": [42953, 23058, 13894],
    "dev_seen": [8291],
    "test_seen": [16395, 37405],
}


def write_json(path, content):
    """Write a JSON file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def draw(path, shade=0):
    """Write a small picture and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (48, 64), (shade % 256, 90, 160)).save(path)


def write_mmimdb(root, films=None, layout="original"):
    """Write films; the even ones are dramas and westerns, the odd ones comedies.

    ``layout`` is "original" (``dataset``) or "prompts" (``labels`` and ``images``).
    """
    films = FILMS if films is None else films
    facts, posters = {
        "original": ("dataset", "dataset"),
        "prompts": ("labels", "images"),
    }[layout]
    write_json(root / "split.json", films)
    for split in films.values():
        for i, film in enumerate(split):
            n_plots = PLOTS.get(film, 1)
            genres = ["Drama", "Western", "News"] if i % 2 == 0 else ["Comedy"]
            fact = {
                "plot": [f"Plot {j} of {film}." for j in range(n_plots)],
                "genres": genres,
                "title": f"Film {film}",
            }
            if i % 2:
                fact["plot outline"] = f"Outline of {film}."
            write_json(root / facts / f"{film}.json", fact)
            draw(root / posters / f"{film}.jpeg", 40 * i)
    return root


def write_food101(root, dishes=None, titles="csv"):
    """Write pictures of dishes and their titles; "fried_rice_7.jpg" has none."""
    dishes = DISHES if dishes is None else dishes
    write_json(root / "split.json", dishes)
    said = {"train": [], "test": []}
    for split, names in dishes.items():
        folder = "test" if split == "test" else "train"
        for i, name in enumerate(names):
            dish = name[: name.rindex("_")]
            draw(root / "images" / folder / dish / name, 30 * i)
            if name != "fried_rice_7.jpg":
                said[folder].append((name, f'The best {dish}, "easy" | Blog', dish))
    if titles == "json":
        both = said["train"] + said["test"]
        write_json(root / "text.json", {name: title for name, title, _ in both})
        return root
    (root / "texts").mkdir()
    for folder, rows in said.items():
        path = root / "texts" / f"{folder}_titles.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
    return root


def write_hateful_memes(root, memes=None):
    """Write memes; every second one is labelled as hateful."""
    memes = MEMES if memes is None else memes
    for split, numbers in memes.items():
        lines = []
        for i, number in enumerate(numbers):
            meme = {"id": number, "img": f"img/{number:05}.png", "label": i % 2}
            lines.append(json.dumps(meme | {"text": f"writing on meme {number}"}))
            draw(root / meme["img"], 50 * i)
        (root / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_clip(path, i, sound=True):
    """Write a film of three frames, of which the number tells the shade and pitch."""
    frames = np.full((3, 32, 32, 3), 25 * (i % 10), np.uint8)
    heard = (16000, tone(0.2, 16000, 200 + 100 * (i % 7))) if sound else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(film_bytes(frames, sound=heard))


def write_crema_d(root, n_actors=20):
    """Write two clips of each actor; of ten actors, one is tested and one for later."""
    (root / "AudioWAV").mkdir()
    for i in range(2 * n_actors):
        name = f"{1001 + i // 2}_DFA_{('ANG', 'SAD')[i % 2]}_XX"
        (root / "AudioWAV" / f"{name}.wav").write_bytes(
            sound_bytes(tone(0.2, 16000, 300 + 300 * (i % 2)), 16000)
        )
        write_clip(root / "VideoFlash" / f"{name}.flv", i, sound=False)
    return root


def write_ave(root):
    """Write films of two categories; "c0" is in training and test."""
    lists = {"train": range(8), "val": range(10, 12), "test": [0, *range(20, 23)]}
    for split, numbers in lists.items():
        lines = [f"{('Goat', 'Bell')[i % 2]}&c{i}&good&0&10" for i in numbers]
        (root / f"{split}Set.txt").write_text("\n".join(lines))
        for i in numbers:
            write_clip(root / "AVE" / f"c{i}.mp4", i)
    return root


def write_kinetics_sound(root):
    """Write films of two classes in the folders of two splits."""
    for split, n in {"train": 8, "val": 4}.items():
        for i in range(n):
            label = ("playing organ", "tap_dancing")[i % 2]
            write_clip(root / split / label / f"{split}{i}_000001_000011.mp4", i)
    return root
