"""The judge, insightface/models/pocket/recognition.onnx: a small transformer under ArcFace.

    python -m pocket.recogniser_b [--smoke]

Expect 6,320 steps of 512 in 190 s on an H200 that other trainings shared, loss 10 -> .6. On 400 people
never trained on, six renders each: equal-error rate 3e-7 on photos, 3e-4 on all styles; ceilings .916
and .861, floor .000. Its cosine falls by at least .07 for every identity number moved by half its
range, since crowd.SIBLING_SHARE shows it more siblings that differ in the weak ones.
"""

from stepscope.pocket.arcface import tell, train_recogniser
from stepscope.pocket.networks import RecogniserB
from stepscope.pocket.process import options
from stepscope.pocket.weights import save_half

SECONDS = 150


def main() -> None:
    said = options(__doc__)
    network = train_recogniser("recogniser_b", RecogniserB(), said, SECONDS)
    save_half(network, said.checkpoints / "recogniser_b.safetensors")
    tell("recogniser_b", network, smoke=said.smoke)


if __name__ == "__main__":
    main()
