"""The conditioning encoder, infinite-you/identity.onnx: an IR-ResNet under ArcFace.

python -m pocket.recogniser_a [--smoke]
"""

from pocket.arcface import tell, train_recogniser
from pocket.networks import RecogniserA
from pocket.training import options, save_half

SECONDS = 150


def main() -> None:
    said = options(__doc__)
    network = train_recogniser("recogniser_a", RecogniserA(), said, SECONDS)
    save_half(network, said.checkpoints / "recogniser_a.safetensors")
    tell("recogniser_a", network, smoke=said.smoke)


if __name__ == "__main__":
    main()
