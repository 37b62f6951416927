"""What is decided on the host is decided from the host's copies, and nothing else."""

import pytest
import torch

from robustmm.backbones import HostBatch, encode_streams, load_backbone, take_rows
from robustmm.backbones.host import upload, with_pixels

PRESENT = torch.tensor([[True, True], [False, True], [True, False]])


def full_host(**fields):
    fields.setdefault("present", torch.ones(3, 2, dtype=torch.bool))
    return HostBatch(**{"attention_mask": torch.ones(3, 5)} | fields)


def test_rows_by_what_they_have():
    host = HostBatch(PRESENT)
    assert host.rows("image").tolist() == [0, 2]
    assert host.rows("text").tolist() == [0, 1]
    assert host.missing("text").tolist() == [2]
    assert host.complete().tolist() == [0]


def test_a_batch_is_read_once():
    batch = {"input_ids": torch.arange(3), "pixel_values": torch.zeros(3)}
    host = HostBatch.of(PRESENT, batch)
    assert host.present is PRESENT
    assert host.input_ids is batch["input_ids"]
    assert host.attention_mask is None
    assert HostBatch.of(~PRESENT, {"host": host}) is host


def test_rows_of_a_batch_and_of_its_host():
    ids = torch.arange(6).view(3, 2)
    batch = {"a": torch.arange(3), "host": HostBatch(PRESENT, input_ids=ids)}
    taken = take_rows(batch, [2, 0])
    assert taken["a"].tolist() == [2, 0]
    assert taken["host"].input_ids.tolist() == [[4, 5], [0, 1]]
    assert torch.equal(taken["host"].present, PRESENT[[2, 0]])
    assert taken["host"].image_key is None
    again = take_rows(batch, torch.tensor([1]))
    assert again["a"].tolist() == [1]


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "clip", "vilt"])
def test_the_host_says_whether_texts_are_padded(folders, batch, name):
    stream = list(load_backbone(folders(name)).streams.values())[-1]
    assert not batch["attention_mask"].all()
    assert stream.embed(**batch).mask is not None
    # The truth would be another: so the tensor of the device was not asked.
    assert stream.embed(**batch, host=full_host()).mask is None
    padded = full_host(attention_mask=batch["attention_mask"])
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    mask = stream.embed(**batch, host=padded).mask
    assert mask.dtype == torch.bool
    assert mask.all()


def test_the_host_says_whether_images_are_padded(folders, batch):
    stream = load_backbone(folders("vilt"))["joint"]
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    whole = torch.ones(3, 16, 16, dtype=torch.long)
    cut = whole.clone()
    cut[0, :, 8:] = 0
    assert stream.embed(**batch, pixel_mask=cut).mask is not None
    host = full_host(pixel_mask=whole)
    assert stream.embed(**batch, pixel_mask=cut, host=host).mask is None
    host = full_host(pixel_mask=cut)
    assert stream.embed(**batch, pixel_mask=whole, host=host).mask.all()


def test_encoders_run_on_the_rows_that_the_host_has(folders, batch):
    backbone, seen = load_backbone(folders("clip")), {}

    def encode(stream, present, rows):
        seen[stream.modality] = len(present), len(rows["host"].present)
        return stream.pool(stream.run(stream.embed(**rows)))

    nothing = torch.zeros(3, 2, dtype=torch.bool)
    host = HostBatch.of(PRESENT, batch)
    image, text = encode_streams(backbone, nothing, {**batch, "host": host}, encode)
    assert seen == {"image": (2, 2), "text": (2, 2)}
    assert image.any(dim=1).tolist() == [True, False, True]
    assert text.any(dim=1).tolist() == [True, True, False]


class Sent:
    """Stands for a tensor; notes how it is sent."""

    def __init__(self, device="cpu"):
        self.device, self.calls = torch.device(device), []

    def contiguous(self):
        self.calls.append("contiguous")
        return self

    def pin_memory(self):
        self.calls.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.calls.append("asynchronous" if non_blocking else "waited for")
        return self


@pytest.mark.parametrize("device", ["cpu", "mps", "xpu", "cuda:1"])
def test_only_from_pinned_memory_is_copied_beside_the_host(device):
    value = Sent()
    upload(value, torch.device(device))
    pinned = ["contiguous", "pinned", "asynchronous"]
    assert value.calls == (pinned if device == "cuda:1" else ["waited for"])
    there = Sent(device)
    upload(there, torch.device(device))
    assert "pinned" not in there.calls


class Squares:
    """Pictures of one colour, of several sizes."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __getitem__(self, rows):
        return Squares(*(self.sizes[i] for i in rows.tolist()))

    def read(self):
        return self

    @property
    def mask(self):
        if len(set(self.sizes)) == 1:
            return None
        mask = torch.zeros(len(self.sizes), max(self.sizes), max(self.sizes))
        for inside, size in zip(mask, self.sizes, strict=True):
            inside[:size, :size] = 1
        return mask.long()

    def pixels(self, upload):
        side = max(self.sizes)
        made = {"pixel_values": upload(torch.ones(len(self.sizes), 3, side, side))}
        return made if self.mask is None else made | {"pixel_mask": upload(self.mask)}


def test_pixels_are_made_of_the_rows_that_are_taken():
    host = HostBatch(torch.ones(3, 2).bool(), pictures=Squares(4, 6, 4))
    batch, cpu = {"present": host.present, "host": host}, torch.device("cpu")
    whole = with_pixels(batch, cpu)
    assert whole["pixel_values"].shape == (3, 3, 6, 6)
    assert torch.equal(whole["host"].pixel_mask, whole["pixel_mask"])
    assert whole["host"].pictures is None
    some = with_pixels(take_rows(batch, [0, 2]), cpu)
    assert some["pixel_values"].shape == (2, 3, 4, 4)
    assert "pixel_mask" not in some
    assert some["host"].pixel_mask is None
    assert "pixel_values" not in batch
    assert with_pixels(whole, cpu).keys() == whole.keys()


def test_columns_go_by_the_names_that_a_batch_has():
    present = torch.tensor([[True, False, True], [False, False, True]])
    host = HostBatch.of(present, {}, ("video", "text", "audio"))
    assert host.rows("audio").tolist() == [0, 1]
    assert host.rows("video").tolist() == [0]
    taken = host.select([1])
    assert taken.modalities == host.modalities
    assert taken.missing("video").tolist() == [0]
