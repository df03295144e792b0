"""How the faces of a study were found in their photos, in words: how many, how large, how surely."""

from collections.abc import Mapping
from typing import Any

from stepscope.probes.faces import Face
from stepscope.probes.study import Study

# Every shipped portrait is found with more than 0.999; a photograph, or a face on its side, with less.
DRAWN = 0.99
# insightface's detectors give a face that looks into the camera 0.7 and more.
PHOTOGRAPHED = 0.6
SMALL = 48  # pixels of the shorter side of a face, of the 112 that are embedded


def described(found: Mapping[str, Any]) -> str:
    """Where a face was found: `1 face, 66 x 70 pixels, score 1.00`."""
    if found.get("source") == "embedding":
        return "an embedding"
    width, height = sides(found)
    count = found.get("faces", 1)
    many = "1 face" if count == 1 else f"{count} faces, the largest is taken"
    return f"{many}, {width:.0f} x {height:.0f} pixels, score {found['score']:.2f}"


def doubt(study: Study, found: Mapping[str, Any]) -> str:
    """What is doubtful about a face that was found; empty for nothing."""
    if "score" not in found or study.adapter is None:
        return ""
    drawn = study.adapter.name.startswith("pocket")
    told = []
    if found.get("faces", 1) > 1:
        told.append(f"{found['faces']} faces found, the largest is taken")
    if min(sides(found)) < SMALL:
        told.append("the face is small")
    if found["score"] < (DRAWN if drawn else PHOTOGRAPHED):
        told.append(
            f"score {found['score']:.2f} is low, look at face_crop before you trust this run"
        )
        if drawn:
            told.append(
                "the pocket models know drawn portraits only: no photograph has a likeness in them"
            )
    return "; ".join(told)


def doubts(study: Study, faces: Mapping[str, Face]) -> list[str]:
    """A line for each face that is doubtful."""
    told, facts = [], study.facts()
    for name, face in faces.items():
        texts = [doubt(study, face.found)]
        texts += [one.doubt(face, facts) for one in study.adapters.values() if one.reads]
        told += [f"face {name}: {text}" for text in texts if text]
    return told


def sides(found: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height of the box, in pixels of the photo."""
    left, top, right, bottom = found["box"]
    return right - left, bottom - top
