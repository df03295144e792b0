"""The judge, insightface/models/pocket/recognition.onnx: a small transformer under ArcFace.

python -m pocket.recogniser_b [--smoke]
"""

from pocket.arcface import tell, train_recogniser
from pocket.networks import RecogniserB
from pocket.training import options, save_half

SECONDS = 150


def main() -> None:
    said = options(__doc__)
    network = train_recogniser("recogniser_b", RecogniserB(), said, SECONDS)
    save_half(network, said.checkpoints / "recogniser_b.safetensors")
    tell("recogniser_b", network, smoke=said.smoke)


if __name__ == "__main__":
    main()
