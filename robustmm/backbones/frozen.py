"""Modules whose frozen parameters are the same objects in every copy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from torch import Tensor, nn


class FrozenModule(nn.Module):
    """A frozen module that may hold trainable adapters.

    ``copy.deepcopy`` gives it a module tree of its own around the same frozen
    parameters. It stays in evaluation mode, but for its adapters.
    """

    _shared: list[nn.Parameter]

    def adapters(self) -> Iterator[nn.Module]:
        """Iterate over the trainable modules inside."""
        return iter(())

    def freeze(self) -> None:
        """Freeze and mark as shared what the module holds now."""
        self.eval().requires_grad_(False)
        self._shared = list(self.parameters())

    def is_shared(self, tensor: Tensor) -> bool:
        """Tell whether a tensor belongs to the frozen model, shared by all copies."""
        # By identity: ``in`` would compare the values.
        return any(tensor is shared for shared in self._shared)

    def thaw(self, choose: Callable[[str], bool]) -> None:
        """Put trainable copies in the place of some frozen parameters.

        Parameters
        ----------
        choose : callable (name) -> bool
            Tells from its dotted name whether a parameter is to be trained. Adapters
            are left alone.
        """
        own = {}
        for name, parameter in list(self.named_parameters()):
            if self.is_shared(parameter) and choose(name):
                # A copy, as training it in place would train the model of everybody.
                own[id(parameter)] = nn.Parameter(parameter.detach().clone())
        # Wherever the parameter stands: one may have several names.
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if id(parameter) in own:
                    module._parameters[name] = own[id(parameter)]
        self._shared = [p for p in self._shared if id(p) not in own]

    def train(self, mode: bool = True) -> FrozenModule:
        """Set the mode of the adapters; the frozen modules stay in evaluation mode."""
        # All of it first: dropout in the frozen layers would make their states random.
        super().train(False)
        for adapter in self.adapters():
            adapter.train(mode)
        # Says what was asked for, for adapters that are wrapped later.
        self.training = mode
        return self

    def __deepcopy__(self, memo: dict) -> FrozenModule:
        # deepcopy takes what is in the memo for a copy that was made already.
        memo.update({id(tensor): tensor for tensor in self._shared})
        twin = self.__class__.__new__(self.__class__)
        # Before the contents, which may refer to the module itself.
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def _apply(self, fn: Callable, recurse: bool = True) -> FrozenModule:
        # Module.to rewrites the data of its Parameter objects, and these belong to
        # every other copy too: convert objects of our own instead.
        own = {id(p): nn.Parameter(p.detach(), False) for p in self._shared}
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if id(parameter) in own:
                    module._parameters[name] = own[id(parameter)]
        self._shared = list(own.values())
        return super()._apply(fn, recurse)
