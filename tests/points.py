"""Points of two classes and a net for them: what tests of a training train."""

import torch
from torch import nn
from torch.utils.data import Dataset

from robustmm.training.net import Net


class Points(Dataset):
    def __init__(self, n=12, weight=1.0):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(n, 3, generator=generator)
        self.weight = torch.full((n,), float(weight))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        item = {"x": self.x[i], "sample_weight": self.weight[i], "row": i}
        return item, int(self.x[i].sum() > 0)


class Linear(nn.Module):
    def __init__(self, penalty=None):
        super().__init__()
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(3, 2)
        self.penalty = penalty

    def forward(self, x):
        logits = self.head(self.frozen(x))
        if self.penalty is None or not self.training:
            return logits
        return logits, torch.tensor(self.penalty)


def make(penalty=None, module=None, **params):
    defaults = {
        "criterion": nn.CrossEntropyLoss,
        "criterion__reduction": "none",
        "lr": 0.1,
        "max_epochs": 3,
        "batch_size": 4,
        "train_split": None,
        "callbacks__print_log": None,
        "verbose": 0,
    }
    return Net(module or Linear(penalty), **defaults | params)
