"""Whom the images of a run should show: a photo of each person, which is measured against later."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import beside, local_path

Faces = Sequence[str | Path] | Mapping[str, str | Path]


def photos_of(faces: Faces) -> dict[str, str]:
    """The place of each person's photo, by name; photos without names are named by their files.

    Raises StepscopeError for a photo that does not exist or is no picture, and for two of one name.
    """
    if isinstance(faces, str | Path):
        raise StepscopeError(f"faces={faces!r}: name a list of photos, faces=[{str(faces)!r}]")
    named = list(
        faces.items() if isinstance(faces, Mapping) else ((Path(f).stem, f) for f in faces)
    )
    found: dict[str, str] = {}
    for name, photo in named:
        place = local_path(photo, "faces")
        if not place.is_file():
            raise StepscopeError(f"faces: no file {str(photo)!r}{beside(place)}")
        try:
            with Image.open(place) as picture:
                picture.verify()
        except Exception as error:  # Pillow raises what its decoders do
            raise StepscopeError(f"faces: {str(photo)!r} is no picture") from error
        if name in found:
            raise StepscopeError(
                f"faces: two photos are named {name!r}: give each person a name, faces={{NAME: PHOTO}}"
            )
        found[name] = str(place.absolute())
    return found
