"""A device that is not there: numbers of the CPU, kept as strictly as a GPU's are.

Import it in a process of its own before anything there runs backwards; the device is
``"pretended"``. It refuses what CUDA refuses: tensors of CPU and device in one operator
(copies, indices and single numbers apart), ``numpy()``; ``Tensor.to`` gives a copy that
is no parameter; autocast follows CUDA's lists. And it notes in ``waits`` what a CUDA
device makes the host wait for, an upload from memory that is not pinned included. It
knows nothing of kernels, streams, generators and speed.
"""

import sys
from pathlib import Path

import torch
from torch.utils import _pytree, backend_registration

NAME = "pretended"
ATEN = torch.ops.aten
# What the host had to wait for, one text each; whoever counts clears it.
waits: list[str] = []

_INDEXED = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN._index_put_impl_.default)
_COPIES = (ATEN._to_copy.default, ATEN.copy_.default)
# The result, or its shape, depends on numbers that only the device has.
_ASKS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
# Files whose lines say where a wait comes from.
_NAMED = ("robustmm", "skorch")


class _Module(backend_registration._DummyBackendModule):
    """What ``torch.pretended`` is."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class _NoGrad(torch.no_grad):
    """Takes the place of inference mode, whose tensors a wrapper cannot hold."""

    def __new__(cls, mode=True):
        return super().__new__(cls) if mode is True else torch.enable_grad()

    def __init__(self, mode=True):
        super().__init__()


class Pretended(torch.Tensor):
    """A tensor of the device around the one of the CPU that has its numbers, ``held``.

    To torch it has no storage, so nothing can read past the operators below.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        own = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=f"{NAME}:0",
        )
        own.held = held
        return own

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _run(operator, *args, **(kwargs or {}))

    # With these two, Module.to puts the tensor into the Parameter that is there, as it
    # does on CUDA; a wrapper without them would get a Parameter of its own.
    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, size, stride):
        return Pretended(inner["held"])

    def __deepcopy__(self, memo):
        twin = Pretended(self.held.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, self.requires_grad)
        memo[id(self)] = twin
        return twin

    # Opened on the CPU, as with the map_location that checkpoints are read with.
    def __reduce_ex__(self, protocol):
        return self.held.detach().__reduce_ex__(protocol)

    def numpy(self, *args, **kwargs):
        raise TypeError(f"can't convert a {NAME} tensor to numpy")

    __array__ = numpy

    def tolist(self):
        return self.cpu().tolist()  # torch's own reads a storage


def _run(operator, *args, **kwargs):
    """Run an operator on the numbers held; wrap the result if it is on the device."""
    flat, layout = _pytree.tree_flatten((args, kwargs))
    inside = [x for x in flat if isinstance(x, Pretended)]
    outside = [x for x in flat if _is_of_cpu(x)]
    there = _ends_there(operator, args, kwargs, inside)
    if inside and outside and operator not in _COPIES:
        _refuse_mixtures(operator, args, outside)
    if _waits(operator, args, kwargs, there, inside, outside):
        waits.append(f"{operator} {_place()}")
    args, kwargs = _pytree.tree_unflatten([_held(x) for x in flat], layout)
    kwargs.pop("pin_memory", None)
    result = operator(*args, **kwargs)
    if not there:
        return result
    # An operator in place returns its argument, which must stay the same object.
    known = {id(x.held): x for x in inside}
    return _pytree.tree_map_only(
        torch.Tensor, lambda t: known[id(t)] if id(t) in known else Pretended(t), result
    )


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    """Stand for ``Tensor.pin_memory``: give a copy with a mark."""
    if hasattr(tensor, "is_pinned_here"):
        return tensor
    if any(not s and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True)):
        raise RuntimeError("an expanded tensor cannot be pinned")
    twin = tensor.clone()
    twin.is_pinned_here = True
    return twin


def _is_of_cpu(x) -> bool:
    is_tensor = isinstance(x, torch.Tensor) and not isinstance(x, Pretended)
    return is_tensor and x.device.type == "cpu"


def _held(x):
    if isinstance(x, torch.device):
        return torch.device("cpu")
    return x.held if isinstance(x, Pretended) else x


def _ends_there(operator, args, kwargs, inside) -> bool:
    """Whether the result is on the device."""
    if operator is ATEN.copy_.default:
        return isinstance(args[0], Pretended)
    target = kwargs.get("device")
    return bool(inside) if target is None else torch.device(target).type == NAME


def _refuse_mixtures(operator, args, outside) -> None:
    """Raise for CPU tensors beside tensors of the device, as CUDA does."""
    indices = _indices(operator, args) if isinstance(args[0], Pretended) else []
    takes_numbers = torch.Tag.pointwise in operator.tags
    odd = [
        tuple(x.shape)
        for x in outside
        if not any(x is index for index in indices)
        and not (x.dim() == 0 and takes_numbers)
    ]
    if odd:
        raise RuntimeError(f"{operator} got tensors of {NAME} and, of cpu, {odd}.")


def _indices(operator, args) -> list[torch.Tensor]:
    indices = args[1] if operator in _INDEXED else ()
    return [index for index in indices if index is not None]


def _waits(operator, args, kwargs, there, inside, outside) -> bool:
    """Whether the host waits until the device has done what it was told so far."""
    if operator in _COPIES:
        if inside and not there:
            return True
        # An upload waits unless it is told not to and may be done from where it is.
        asynchronous = kwargs.get("non_blocking") or True in args[2:]
        pinned = all(hasattr(x, "is_pinned_here") for x in outside)
        return there and bool(outside) and not (asynchronous and pinned)
    if inside and operator in _INDEXED:
        # Bool masks are counted first, and indices of the CPU are uploaded.
        return any(
            _is_of_cpu(index) or index.dtype in (torch.bool, torch.uint8)
            for index in _indices(operator, args)
        )
    return bool(inside) and bool(_ASKS & set(operator.tags))


def _place() -> str:
    """The innermost line of the package, or of skorch, that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if set(_NAMED) & set(path.parts):
            return f"in {path.name}, line {frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


# Autocast -----------------------------------------------------------------------------

# What CUDA's autocast runs in the lower precision, and what in float32; of its lists,
# the operators that an encoder may meet.
_LOWER = """
    addbmm addmm addmv baddbmm bmm conv1d conv2d conv2d.padding conv3d einsum linear
    matmul mm mv scaled_dot_product_attention
"""
_FULL = """
    acos asin binary_cross_entropy_with_logits cdist cosh cosine_similarity cumprod
    cumsum erfinv exp expm1 group_norm kl_div l1_loss layer_norm linalg_vector_norm log
    log10 log1p log2 log_softmax.int logsumexp mse_loss native_layer_norm nll_loss
    norm.Scalar norm.ScalarOpt_dim pow.Tensor_Scalar pow.Tensor_Tensor prod prod.dim_int
    reciprocal rms_norm rsqrt sinh smooth_l1_loss softmax.int softplus sum
    sum.dim_IntList tan upsample_bicubic2d upsample_bilinear2d
"""
_AUTOCAST = "AutocastPrivateUse1"


def _casting(operator, lower: bool):
    """Return the operator behind a cast of its tensors of the device."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def run(*args, **kwargs):
        to = torch.get_autocast_dtype(NAME) if lower else torch.float32

        def cast(x):
            fits = x.device.type == NAME and x.is_floating_point()
            return x.to(to) if fits else x

        # Otherwise the operators inside would be sent here again.
        with torch._C._ExcludeDispatchKeyGuard(keys):
            args, kwargs = _pytree.tree_map_only(torch.Tensor, cast, (args, kwargs))
            return operator(*args, **kwargs)

    return run


def _register() -> list[torch.library.Library]:
    """Make the device known; what it returns must be kept, or all is undone."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Module())
    # torch.tensor makes a tensor of the CPU and uploads it.
    torch._C._set_only_lift_cpu_tensors(True)
    torch.inference_mode = _NoGrad
    torch.Tensor.pin_memory = _pin
    every = torch.library.Library("_", "IMPL")
    every.fallback(_run, "PrivateUse1")
    every.fallback(torch.library.fallthrough_kernel, _AUTOCAST)
    listed = torch.library.Library("aten", "IMPL")
    for names, lower in ((_LOWER, True), (_FULL, False)):
        for name in names.split():
            packet, _, overload = name.partition(".")
            operator = getattr(getattr(ATEN, packet), overload or "default")
            listed.impl(name, _casting(operator, lower), _AUTOCAST)
    return [every, listed]


_KEPT = _register()
