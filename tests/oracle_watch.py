"""Plain torch hooks that keep what one pipeline call computed; nothing of this project's is used.

`Watch` keeps every pass of the denoiser whole (the pipelines are tiny), and every scheduler step with
the scheduler's own estimate of the clean latents.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn


@dataclass
class Pass:
    """One forward pass of a network, row by row.

    given: its arguments by name. outputs: (quantity, block) -> stream -> (row, token, channel), where
    `image` still holds reference tokens and `text` its padding. skips_itself: rows in which some
    self-attention gave the projection of its own value, as perturbed attention does. skips: of a U-Net, the
    features that its downward half hands up, in order, and the output of its middle block.
    """

    given: dict[str, Any]
    output: Any = None
    outputs: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)
    skips_itself: Tensor | None = None
    skips: list[Tensor] = field(default_factory=list)

    @property
    def sample(self) -> Tensor:
        return self.given["hidden_states" if "hidden_states" in self.given else "sample"]

    @property
    def context(self) -> Tensor:
        return self.given["encoder_hidden_states"]

    @property
    def blocks(self) -> list[str]:
        """In the order in which they ran."""
        return [block for quantity, block in self.outputs if quantity == "residual"]


@dataclass
class Step:
    """One step of the scheduler: its arguments, what it made of them, and the passes before it."""

    output: Tensor
    timestep: float
    sample: Tensor
    after: Tensor
    clean: Tensor
    passes: list[Pass]
    control: list[Pass]


class Watch:
    """Keeps a pipeline's passes and steps while `on()` lasts; `decoded` is what the VAE was given."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.denoiser = pipe, getattr(pipe, "transformer", None) or pipe.unet
        self.control = getattr(pipe, "controlnet", None)
        self.steps: list[Step] = []
        self.decoded: Tensor | None = None
        self._passes: list[Pass] = []
        self._control: list[Pass] = []
        self._converted: Tensor | None = None

    @contextmanager
    def on(self) -> Iterator["Watch"]:
        with ExitStack() as stack:
            networks = [(self.denoiser, self._passes)]
            if self.control is not None:
                networks.append((self.control, self._control))
            for network, passes in networks:
                for handle in _hooks(network, passes):
                    stack.callback(handle.remove)
            _replace(stack, self.pipe.scheduler, "step", self._step)
            if hasattr(self.pipe.scheduler, "convert_model_output"):
                _replace(stack, self.pipe.scheduler, "convert_model_output", self._convert)
            _replace(stack, self.pipe.vae, "decode", self._decode)
            yield self

    def _decode(self, original: Callable[..., Any], latents: Tensor, *args: Any, **kw: Any) -> Any:
        self.decoded = latents.clone()
        return original(latents, *args, **kw)

    def _convert(self, original: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        self._converted = original(*args, **kw)
        return self._converted

    def _step(
        self,
        original: Callable[..., Any],
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        *args: Any,
        return_dict: bool = True,
        **kw: Any,
    ) -> Any:
        given = model_output.clone(), sample.clone()
        made = original(model_output, timestep, sample, *args, return_dict=True, **kw)
        scheduler = self.pipe.scheduler
        clean = self._converted  # multistep schedulers turn the output into it, and say it to none
        if clean is None:
            clean = _clean(scheduler, made, float(timestep), *given)
        passes, control = self._passes.copy(), self._control.copy()
        self._passes.clear()
        self._control.clear()
        after = made.prev_sample.clone()
        self.steps.append(Step(given[0], float(timestep), given[1], after, clean, passes, control))
        return made if return_dict else made.to_tuple()


def _clean(scheduler: Any, made: Any, timestep: float, output: Tensor, sample: Tensor) -> Tensor:
    """The clean latents as the scheduler itself estimates them."""
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        settings: Any = scheduler.config
        return sample - timestep / settings.num_train_timesteps * output
    if "denoised" in made:  # LCM: what it returns is mixed with the noisy latents
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        return (made.denoised - skip * sample) / out
    return made.pred_original_sample.clone()


def _replace(stack: ExitStack, owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    object.__setattr__(owner, name, method)
    stack.callback(object.__delattr__, owner, name)


def _hooks(network: nn.Module, passes: list[Pass]) -> Iterator[Any]:
    """Hooks on a network and its blocks, each pass appended when it begins."""
    signature = inspect.signature(type(network).forward)

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        passes.append(Pass(dict(signature.bind(module, *args, **kwargs).arguments)))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        passes[-1].output = (
            output[0] if isinstance(output, tuple) else getattr(output, "sample", None)
        )

    yield network.register_forward_pre_hook(before, with_kwargs=True)
    yield network.register_forward_hook(after)
    if type(network).__name__ == "UNet2DConditionModel":
        yield from _skips(network, passes)
    for name, block in network.named_modules():
        kind = type(block).__name__
        if kind in ("FluxTransformerBlock", "FluxSingleTransformerBlock"):
            yield from _flux_block(block, _name(name), passes)
        elif isinstance(block, BasicTransformerBlock):
            yield from _unet_block(block, _name(name), passes)


def _skips(network: Any, passes: list[Pass]) -> Iterator[Any]:
    def keep(module: nn.Module, args: Any, output: Any) -> None:
        features = output[1] if isinstance(output, tuple) else (output,)
        passes[-1].skips += [feature.clone() for feature in features]

    for module in (network.conv_in, *network.down_blocks, network.mid_block):
        yield module.register_forward_hook(keep)


def _name(path: str) -> str:
    """`single_transformer_blocks.3` is single.03, `down_blocks.0.…blocks.1` is down.00.….01."""
    numbers = [f"{int(n):02d}" for n in re.findall(r"(?<=\.)\d+", path)]
    kind = path.split("_")[0]
    return ".".join(["double" if kind == "transformer" else kind, *numbers])


def _flux_block(block: Any, name: str, passes: list[Pass]) -> Iterator[Any]:
    def attention(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, tuple):
            streams = dict(zip(("image", "text", "image_prompt"), output, strict=False))
        else:
            text = output.shape[1] - passes[-1].sample.shape[1]
            streams = {"image": output[:, text:], "text": output[:, :text]}
        passes[-1].outputs["attention", name] = {k: v.clone() for k, v in streams.items()}

    def residual(module: nn.Module, args: Any, output: Any) -> None:
        text, image = output
        passes[-1].outputs["residual", name] = {"image": image.clone(), "text": text.clone()}

    yield block.attn.register_forward_hook(attention)
    yield block.register_forward_hook(residual)


def _unet_block(block: Any, name: str, passes: list[Pass]) -> Iterator[Any]:
    def keep(**streams: Tensor) -> None:
        passes[-1].outputs.setdefault(("attention", name), {}).update(streams)

    def first(module: Any, args: Any, output: Tensor) -> None:
        if block.only_cross_attention:
            return
        keep(image=output.clone())
        one = passes[-1]
        own = module.to_out[0](module.to_v(args[0]))
        same = torch.isclose(own, output, rtol=1e-4, atol=1e-6).flatten(1).all(1)
        one.skips_itself = same if one.skips_itself is None else one.skips_itself | same

    def second(module: Any, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
        processor, text = module.processor, output.clone()
        if hasattr(processor, "to_k_ip"):  # the text's part is what is left without the adapter
            scales, processor.scale = processor.scale, [0.0] * len(processor.scale)
            text = type(module).forward(module, *args, **kwargs)
            processor.scale = scales
            keep(image_prompt=output - text)
        keep(text=text)

    def residual(module: nn.Module, args: Any, output: Tensor) -> None:
        passes[-1].outputs["residual", name] = {"image": output.clone()}

    yield block.attn1.register_forward_hook(first)
    yield block.attn2.register_forward_hook(second, with_kwargs=True)
    yield block.register_forward_hook(residual)
