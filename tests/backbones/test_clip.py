import torch

from robustmm.backbones import load_backbone


def test_what_stands_after_the_text_sees_it_but_no_padding(folders, batch):
    stream = load_backbone(folders("clip"))["text"]
    proxy = torch.randn(1, 16)

    def read(ids, mask):
        tokens = stream.embed(ids, mask).insert("proxy", proxy)
        return stream.norm(stream.run(tokens, keep=("proxy",))["proxy"])

    ids, mask = batch["input_ids"], batch["attention_mask"]
    together = read(ids, mask)
    for row, size in enumerate(mask.sum(dim=1)):
        alone = read(ids[row : row + 1, :size], mask[row : row + 1, :size])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[2], atol=1e-3)


def test_old_configurations_pool_the_largest_token(folders, batch):
    stream = load_backbone(folders("clip"))["text"]
    assert stream.embed(**batch).anchor.tolist() == [4, 1, 3]
    stream.end_token = 2
    assert stream.embed(**batch).anchor.tolist() == [3, 1, 2]
    assert stream.facts()["end_token"] == 2
