"""What gives values and is not recorded: another photo of the person, a random face, the adapter off."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.fingerprint import of_bytes
from stepscope.hooks.patch import replaced
from stepscope.probes import grid
from stepscope.probes.devices import pick_device
from stepscope.probes.faces import UNIT, Face, face_files, person
from stepscope.probes.models import Models, faces_of
from stepscope.probes.replay import continue_rows, unpack

SAME = "same person: "
"""Before a face's name, the name of the other photo of that person among the models' faces."""

RANDOM = "random: "
"""Before a face's name, the name of a random face, or picture, as far from it as the run's next one is."""


@dataclass(frozen=True)
class Trajectory:
    """A sample that was denoised for its values alone: x_t before every step, and the final latents."""

    latents: Float[np.ndarray, "step channel y x"]
    final: Float[np.ndarray, "channel y x"]


def with_other_photos(loaded: Models, photos: Sequence[str]) -> Models:
    """The models, with another photo of each person of whom there is one.

    photos: images and folders. A photo shows the person whose name it has, without the number at the end.
    """
    adapter = loaded.study.adapter
    if not photos or adapter is None:
        return loaded
    chosen = other_photos(list(loaded.faces), photos)
    read = faces_of(loaded.study, chosen, pick_device(loaded.study.device))
    more = {SAME + name: replace(face, name=SAME + name) for name, face in read.items()}
    return replace(loaded, faces={**loaded.faces, **more})


def with_random_faces(loaded: Models, others: Mapping[str, str]) -> Models:
    """The models, with a random face, or picture, beside each one: see `random_like`.

    others: of each face, the next one of the run. Raises StepscopeError where two are given in other
    shapes.
    """
    made = {}
    for name, next_one in others.items():
        face, other = loaded.faces[name], loaded.faces[next_one]
        known = np.isfinite(face.embedding).all()  # NaN where no face is looked for
        embedding = random_like(name, face.embedding, other.embedding) if known else face.embedding
        given = {
            key: random_like(f"{name} {key}" if key != UNIT else name, own, other.given[key])
            for key, own in face.given.items()
        }
        found = {**face.found, "source": "random"}
        made[RANDOM + name] = Face(RANDOM + name, embedding, None, found, 0.0, given)
    return replace(loaded, faces={**loaded.faces, **made})


def random_like(
    name: str, own: Float[np.ndarray, "..."], other: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """Numbers as long as `other` and at its angle a from `own`, in a direction drawn from the name.

    |other| (cos(a) e + sin(a) u), with e along `own`, and u of unit norm and at right angles to it; `own`
    where both are equal. Raises StepscopeError for other shapes.
    """
    if own.shape != other.shape:
        raise StepscopeError(
            f"faces hold embeddings of other shapes, {own.shape} and {other.shape}: name one form for all"
        )
    if (own == other).all():
        return own
    a, b = own.astype(np.float64).reshape(-1), other.astype(np.float64).reshape(-1)
    drawn = np.random.default_rng(int(of_bytes(name.encode())[:15], 16)).normal(size=a.shape)
    along = a / np.linalg.norm(a)
    across = drawn - (drawn @ along) * along
    cosine = float(np.clip(along @ b / np.linalg.norm(b), -1, 1))
    found = cosine * along + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
    return (np.linalg.norm(b) * found).astype(np.float32).reshape(own.shape)


def other_photos(faces: Sequence[str], photos: Sequence[str]) -> dict[str, Path]:
    """Of each face, the first other photo of that person, where there is one."""
    files = face_files(photos, "photos")
    return {
        face: found
        for face in faces
        if (found := next(
            (f for f in files.values() if person(f.stem) == person(face) and f.stem != face), None
        ))
    }  # fmt: skip


def trajectories(
    loaded: Models,
    cells: Sequence[grid.Cell],
    noise: Float[np.ndarray, "row channel y x"],
    on_step: Callable[[], None],
) -> list[Trajectory]:
    """Denoise cells from their noise to the end, and keep x_t before every step.

    noise: x_t before the first step, of each cell.
    """
    kept: list[np.ndarray] = []

    def keep(original: Callable[..., Any], output: Any, timestep: Any, sample: Any, **more: Any):
        kept.append(unpack(loaded, sample, noise.shape[-2:]))
        return original(output, timestep, sample, **more)

    with replaced(loaded.pipe.scheduler, "step", keep):
        made = continue_rows(loaded, cells, noise, 0, (), on_step)
    latents = np.stack(kept, 1)
    return [Trajectory(x, final) for x, final in zip(latents, made.final, strict=True)]


def needed_face(faces: Container[str], name: str, photos: Sequence[str]) -> str:
    """The name of the other photo of a face's person. Raises StepscopeError where there is none."""
    if SAME + name not in faces:
        raise StepscopeError(
            f"donor=same needs another photo of {name!r}, and photos={list(photos)} has none: a photo "
            f"{person(name)}_2.jpg shows the person of {name}"
        )
    return SAME + name
