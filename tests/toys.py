"""A classifier that costs next to nothing, for tests of what is not a method's."""

import torch
from contract import ToyClassifier

from robustmm.adapters import LinearHead

N_FEATURES = 8


class QuickModule(torch.nn.Module):
    """What is there, how long the text is, and mean colours, into a linear layer."""

    def __init__(self, backbone, n_outputs):
        super().__init__()
        self.backbone = backbone
        self.head = LinearHead(N_FEATURES, n_outputs)

    def features(self, present, input_ids, attention_mask, pixel_values, **batch):
        ids = (input_ids * attention_mask).double()
        length = attention_mask.sum(dim=1, keepdim=True)
        words = torch.stack([ids.sum(dim=1), (ids**2).sum(dim=1)], dim=1).float()
        colours = pixel_values.mean(dim=(2, 3)) * present[:, :1]
        spelled = torch.log1p(words) * present[:, 1:]
        return torch.cat([present.float(), length.float(), spelled, colours], dim=1)

    def forward(self, **batch):
        return self.head(self.features(**batch))


class QuickClassifier(ToyClassifier):
    """Reads a row of the table like every classifier, and hardly computes."""

    def __init__(
        self,
        backbone="robustmm/tiny-clip",
        *,
        max_epochs=1,
        batch_size=8,
        random_state=0,
        class_weight=None,
        on_bad_image="raise",
        early_stopping=False,
        net_params=None,
        device="cpu",
        precision="auto",
        lr=1e-3,
        head_init="random",
        modality_dropout=0.0,
        verbose=0,
    ):
        super().__init__(
            backbone,
            max_epochs=max_epochs,
            batch_size=batch_size,
            random_state=random_state,
            class_weight=class_weight,
            on_bad_image=on_bad_image,
            early_stopping=early_stopping,
            net_params=net_params,
            device=device,
            verbose=verbose,
        )
        self.precision = precision
        self.lr = lr
        self.head_init = head_init
        self.modality_dropout = modality_dropout

    def _build_module(self, backbone, n_outputs):
        return QuickModule(backbone, n_outputs)
