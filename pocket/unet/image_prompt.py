"""Train IP-Adapters on frozen U-Nets: `python -m pocket.make --only style`, object, or face_id.

style     on sdxl, reads the image encoder, learns from another picture of the same look
object    on sd15, reads the image encoder, learns from another picture of the same hat
face_id   on sdxl, reads the conditioning encoder's face, learns from the person's portrait

Two losses: the base's own, on the noise; and, for looks and faces, how far the estimated picture's look or
face is from what it should be, read by critic.py. No adapter ever sees the few-step LoRA, nor a judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepscope.pocket.muon import Muon
from stepscope.pocket.process import Options, device, rank
from stepscope.pocket.training import Stage
from stepscope.pocket.unet import gallery, image_encoder, layout
from stepscope.pocket.unet.base import unsaid
from stepscope.pocket.unet.critic import READINGS, Critic
from stepscope.pocket.unet.diffusion import FAINT, TIMES, alphas, clean_of, level, noised
from stepscope.pocket.unet.reading import Text

SECONDS = 150.0
BATCH, RATE, MUON, PEOPLE = 384, 1e-3, 2.0, 10_000
TOKENS, FACE_TOKENS = 4, 2
FACE = 512
# The noisy end of the 1000 times.
EARLY = 600
# Image prompts, and sentences, that are left out while training.
DROPPED_IMAGE, DROPPED = 0.08, 0.08
# The weight of the critic's distance falls over the schedule: first find the look or face, then paint well.
CRITIC_FROM, CRITIC_TO = 0.5, 0.15
CHECKS = 8


@dataclass(frozen=True)
class Early:
    """Lessons in the noise, where Stable Diffusion's schedule leaves a picture's mean colour to be seen.

    A run starts from noise that has none, and the base, which trusts it, paints in grey: an adapter that
    only saw noised pictures never had to overrule it.

    share: of the lessons at times from EARLY on. faint: down to this ratio of signal to noise, an error of
    the picture weighs as much as elsewhere. offset: deviation of a constant that is added to the noise of
    each channel (https://www.crosslabs.org/blog/diffusion-with-offset-noise). alone: the share of rows that
    are noise alone, of which the critic sees the estimate, at times within `start`.
    """

    share: float = 0.6
    faint: float = 0.01
    offset: float = 0.12
    alone: float = 0.25
    start: tuple[int, int] = (880, 980)


@dataclass(frozen=True)
class Prompt:
    """One adapter: the backbone that it learns on, what a pair of its pictures shares, what it reads.

    early: how a palette is learnt, which is decided in the noise; None for the rest.
    """

    name: str
    backbone: str
    shares: str
    reads_faces: bool = False
    early: "Early | None" = None

    def file(self, models: Path) -> Path:
        """Where it ships, under the published file's form of name."""
        return models / "ip-adapter" / f"{self.name}_{self.backbone}.safetensors"


PROMPTS = {
    one.name: one
    for one in (
        Prompt("style", "sdxl", "looks", early=Early()),
        Prompt("object", "sd15", "hats"),
        Prompt("face_id", "sdxl", "faces", reads_faces=True),
    )
}


def make(said: Options, name: str) -> None:
    """Train (or go on training) and write the adapter's file."""
    prompt = PROMPTS[name]
    pictures = gallery.load(said, prompt.backbone, people=PEOPLE)
    frozen, words = layout.load(said.models, layout.LAYOUTS[prompt.backbone])
    unet: Any = frozen
    kept_file = prompt.file(said.models)
    unet._load_ip_adapter_weights([start(unet, prompt) if not said.onward else read(kept_file)])
    unet.to(device())
    own = parts(unet)
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    encoder = None if prompt.reads_faces else image_encoder.load(said.models)
    critic = Critic(said, prompt.shares) if prompt.shares in READINGS else None
    stage = Stage(
        name, {"own": own}, said, rate=RATE, seconds=SECONDS, ema=0.995, every=50, save_seconds=300
    )
    matrices = [one for one in own.parameters() if one.ndim == 2]
    others = [one for one in own.parameters() if one.ndim != 2]
    stage.optimiser = Muon(matrices, others, RATE, ratio=MUON)
    size, kept = 4 if said.smoke else BATCH, alphas()
    strangers = gallery.paint(
        said.models, prompt.backbone, 6 if said.smoke else 600, gallery.HELD_OUT
    )
    checked = 0
    among = None if prompt.reads_faces else pictures.having(prompt.shares)
    for progress in stage:
        rows = pictures.draw(size, among)
        image = seen(pictures, rows, prompt, encoder)
        dropped = torch.rand(size, device=device()) < DROPPED_IMAGE
        image = torch.where(dropped[:, None], 0.0, image)
        clean = pictures.latents[rows].float()
        time, noise, alone = lesson(clean, prompt.early)
        with torch.no_grad():
            silent = torch.rand(size, device=device()) < DROPPED
            told = unsaid(words(pictures.sentence_ids(rows)), words.nothing(size), silent)
        x = torch.where(alone[:, None, None, None], noise, noised(clean, noise, kept[time]))
        found = layout.predicted(unet, x, time, told, image[:, None])
        error = (found - noise) ** 2
        if prompt.reads_faces:
            error = error * pictures.face_weight(rows)
        weights = level(kept[time], prompt.early.faint if prompt.early else FAINT) * ~alone
        loss = (error.mean((1, 2, 3)) * weights).mean()
        apart = loss.new_zeros(())
        if critic is not None:
            guess = clean_of(x, found, kept[time])
            apart = (critic(guess, time, pictures, rows) * ~dropped).mean()
        weight = CRITIC_FROM + progress * (CRITIC_TO - CRITIC_FROM)
        stage.descend(loss + weight * apart, noise=error.mean(), apart=apart)
        if rank() == 0 and progress > (checked + 1) / CHECKS:
            checked += 1
            print(
                f"{name} step {stage.step}: {told_apart(unet, words, strangers, prompt, encoder)}"
            )
    stage.finish()
    if rank() == 0:
        write(unet, kept_file, prompt)


def lesson(clean: Tensor, early: Early | None) -> tuple[Tensor, Tensor, Tensor]:
    """Times (b,), noise as `clean` is, and which rows are noise alone, (b,)."""
    size = len(clean)
    time, noise = torch.randint(TIMES, (size,), device=device()), torch.randn_like(clean)
    alone = torch.zeros(size, dtype=torch.bool, device=device())
    if early is None:
        return time, noise, alone
    chance = torch.rand(2, size, device=device())
    late = torch.randint(EARLY, TIMES, (size,), device=device())
    start = torch.randint(*early.start, (size,), device=device())
    alone = chance[1] < early.alone
    time = torch.where(alone, start, torch.where(chance[0] < early.share, late, time))
    constant = early.offset * torch.randn(*clean.shape[:2], 1, 1, device=device())
    return time, noise + constant * ~alone[:, None, None, None], alone


@torch.no_grad()
def told_apart(
    unet: Any,
    words: Text,
    strangers: gallery.Gallery,
    prompt: Prompt,
    encoder: nn.Module | None,
) -> str:
    """The error on pictures never trained on with their own reference, with another's, and with none."""
    generator = torch.Generator(device()).manual_seed(0)
    kept = alphas()
    rows = torch.arange(len(strangers), device=device())
    rows = rows if prompt.reads_faces else strangers.having(prompt.shares)
    size = min(BATCH, len(rows))
    sums = torch.zeros(3, device=device())
    parts = [part for part in rows.split(size) if len(part) == size]
    for part in parts:
        clean = strangers.latents[part].float()
        noise = torch.randn(clean.shape, generator=generator, device=device())
        time = torch.randint(300, TIMES, (size,), generator=generator, device=device())
        x, told = noised(clean, noise, kept[time]), words(strangers.ids[part, 1])
        own = seen(strangers, part, prompt, encoder)
        for i, image in enumerate((own, own.roll(size // 2, 0), torch.zeros_like(own))):
            found = layout.predicted(unet, x, time, told, image[:, None])
            error = ((found - noise) ** 2).mean((1, 2, 3)) * level(kept[time])
            sums[i] += error.mean() / len(parts)
    own, other, none = sums.tolist()
    return f"own reference {own:.4f}, another's {other:.4f}, none {none:.4f}"


@torch.no_grad()
def seen(
    pictures: gallery.Gallery, rows: Tensor, prompt: Prompt, encoder: nn.Module | None
) -> Tensor:
    """What the adapter reads of each row's reference: (b, 256), or faces (b, 512)."""
    if encoder is None:
        return pictures.portraits[rows // gallery.EACH]
    other = pictures.sharing(rows, prompt.shares)
    return image_encoder.embed(encoder, pictures.floats(other))


def start(unet: Any, prompt: Prompt) -> dict[str, dict[str, Tensor]]:
    """An untrained adapter: the image attends as text does, its values silent."""
    width = unet.config.cross_attention_dim
    numbers = FACE if prompt.reads_faces else image_encoder.EMBEDDING
    attention: dict[str, Tensor] = {}
    for number, name in crossed(unet):
        of = unet.get_submodule(name.removesuffix(".processor"))
        attention[f"{number}.to_k_ip.weight"] = of.to_k.weight.detach().clone()
        attention[f"{number}.to_v_ip.weight"] = torch.zeros_like(of.to_v.weight)
    return {"image_proj": projection(prompt, numbers, width), "ip_adapter": attention}


def projection(prompt: Prompt, numbers: int, width: int) -> dict[str, Tensor]:
    """The published projection's weights: one linear layer, or FaceID's two."""
    norm = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    if not prompt.reads_faces:
        layer = nn.Linear(numbers, TOKENS * width)
        return {"proj.weight": layer.weight.data, "proj.bias": layer.bias.data, **norm}
    first, second = nn.Linear(numbers, numbers), nn.Linear(numbers, FACE_TOKENS * width)
    nn.init.normal_(first.weight)  # a unit vector's numbers are about 1 / sqrt(512)
    both = (("proj.0", first), ("proj.2", second))
    return {
        f"{name}.{key}": value.data
        for name, layer in both
        for key, value in layer.named_parameters()
    } | norm


def crossed(unet: Any) -> list[tuple[int, str]]:
    """(number in a published file, processor's name) of each cross attention."""
    names = [name for name in unet.attn_processors if "attn2" in name]
    return [(2 * i + 1, name) for i, name in enumerate(names)]


def parts(unet: Any) -> nn.ModuleDict:
    """The adapter's own modules: projection, and keys and values of each cross attention."""
    found: dict[str, nn.Module] = {"projection": unet.encoder_hid_proj}
    for number, name in crossed(unet):
        found[str(number)] = unet.attn_processors[name]
    return nn.ModuleDict(found)


def write(unet: Any, path: Path, prompt: Prompt) -> None:
    """One file in the published form: image_proj.*, ip_adapter.N.to_k_ip.weight, ..."""
    layers = unet.encoder_hid_proj.image_projection_layers[0]
    state = published(layers.state_dict(), prompt)
    for number, name in crossed(unet):
        processor = unet.attn_processors[name]
        state[f"ip_adapter.{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight
        state[f"ip_adapter.{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().half().cpu().contiguous() for k, v in state.items()}, path)


PUBLISHED = (
    ("image_embeds.", "proj."),
    ("ff.net.0.proj.", "proj.0."),
    ("ff.net.2.", "proj.2."),
)


def published(state: Mapping[str, Tensor], prompt: Prompt) -> dict[str, Tensor]:
    """diffusers' names of a projection's weights to the published ones."""
    found = {}
    for name, weight in state.items():
        for ours, theirs in PUBLISHED:
            name = name.replace(ours, theirs) if name.startswith(ours) else name
        found[f"image_proj.{name}"] = weight
    return found


def read(path: Path) -> dict[str, dict[str, Tensor]]:
    """A shipped file as diffusers' loader wants it."""
    kept = load_file(path)
    return {
        part: {k.removeprefix(f"{part}."): v.float() for k, v in kept.items() if k.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
