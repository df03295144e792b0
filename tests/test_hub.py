"""Of a repository on the hub, what a run reads is downloaded, and for a plan no weights."""

from pathlib import Path

import httpx
import pytest
from huggingface_hub import errors

from stepscope.analysis.metrics.decode import vae_folder
from stepscope.analysis.runs import open_recorded
from stepscope.probes.adapters.infusenet_network import adapter_folder
from stepscope.probes.model_files import file_hashes
from stepscope.probes.plan import outline
from stepscope.probes.study import Study
from stepscope.probes.weights import WeightsError
from tests.hub import Hub
from tests.models import INFINITE_YOU
from tests.shell import infused, listed, study_of, tiny

FLUX_DEV = {
    ".gitattributes": 1_655,
    "LICENSE.md": 18_621,
    "README.md": 4_911,
    "ae.safetensors": 335_304_388,
    "dev_grid.jpg": 1_034_580,
    "flux1-dev.safetensors": 23_802_932_552,
    "model_index.json": 536,
    "scheduler/scheduler_config.json": 273,
    "text_encoder/config.json": 613,
    "text_encoder/model.safetensors": 246_144_352,
    "text_encoder_2/config.json": 782,
    "text_encoder_2/model-00001-of-00002.safetensors": 4_994_582_224,
    "text_encoder_2/model-00002-of-00002.safetensors": 4_530_066_360,
    "text_encoder_2/model.safetensors.index.json": 19_885,
    "tokenizer/merges.txt": 524_619,
    "tokenizer/special_tokens_map.json": 588,
    "tokenizer/tokenizer_config.json": 705,
    "tokenizer/vocab.json": 1_059_962,
    "tokenizer_2/special_tokens_map.json": 2_543,
    "tokenizer_2/spiece.model": 791_656,
    "tokenizer_2/tokenizer.json": 2_424_235,
    "tokenizer_2/tokenizer_config.json": 20_817,
    "transformer/config.json": 378,
    "transformer/diffusion_pytorch_model-00001-of-00003.safetensors": 9_983_040_304,
    "transformer/diffusion_pytorch_model-00002-of-00003.safetensors": 9_949_328_904,
    "transformer/diffusion_pytorch_model-00003-of-00003.safetensors": 3_870_584_832,
    "transformer/diffusion_pytorch_model.safetensors.index.json": 121_262,
    "vae/config.json": 820,
    "vae/diffusion_pytorch_model.safetensors": 167_666_902,
}
"""black-forest-labs/FLUX.1-dev, with its sizes."""
BESIDE = {".gitattributes", "LICENSE.md", "README.md", "ae.safetensors", "dev_grid.jpg"}
BESIDE |= {"flux1-dev.safetensors"}

NETWORK = ("config.json", "diffusion_pytorch_model.safetensors.index.json")
NETWORK += tuple(f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2))
INFINITE = {
    f"infu_flux_v1.0/{variant}/{name}": 3_000_000_000
    for variant in ("aes_stage2", "sim_stage1")
    for name in (*(f"InfuseNetModel/{file}" for file in NETWORK), "image_proj_model.bin")
} | {
    "README.md": 10_000,
    "supports/insightface/models/antelopev2/glintr100.onnx": 260_000_000,
    "supports/optional_loras/flux_realism_lora.safetensors": 22_000_000,
}
"""ByteDance/InfiniteYou; the sizes are of no matter."""

OTHER_FORMS = {
    f"{folder}/{file}": 1
    for folder in ("transformer", "vae", "text_encoder", "text_encoder_2")
    for file in (
        "diffusion_pytorch_model.bin", "pytorch_model.bin", "model.onnx", "flax_model.msgpack",
        "diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors",
    )
} | {"flux.safetensors": 1, "transformer_gguf/q4.safetensors": 1}  # fmt: skip
"""The same weights again, as many repositories have them."""

DEV, YOU = "black-forest-labs/FLUX.1-dev", "ByteDance/InfiniteYou"


def folder_of(study: Study) -> Path:
    return study.family.folder(study.backbone)


def listing(folder: Path) -> dict[str, int]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    hub = Hub(tmp_path / "cache")
    hub.sizes = {DEV: FLUX_DEV, YOU: INFINITE}
    hub.local = {DEV: INFINITE_YOU / "flux-dev"}
    hub.put(monkeypatch)
    return hub


def test_of_flux_dev_the_third_that_diffusers_does_not_read_is_left(hub):
    study = study_of(["backbone=flux_dev", "prompts=[a]"])
    folder_of(study)
    assert set(hub.names(DEV)) == FLUX_DEV.keys() - BESIDE
    assert hub.gigabytes(DEV) == pytest.approx(33.7, abs=0.1)
    assert sum(FLUX_DEV.values()) / 1e9 == pytest.approx(57.9, abs=0.1)


def test_of_infinite_you_one_variant_and_no_support_is_taken(hub):
    study = study_of(["backbone=flux_dev", "prompts=[a]", "adapter=infusenet", "faces=[a.npy]"])
    assert study.adapter is not None
    folder = adapter_folder(study.adapter.path, "aes_stage2")
    assert set(hub.names(YOU)) == {
        n for n in INFINITE if n.startswith("infu_flux_v1.0/aes_stage2/")
    }
    assert folder.name == "aes_stage2"


def test_a_plan_downloads_no_weights(hub, typed, face):
    small = INFINITE_YOU / "infinite-you"
    hub.sizes[YOU] = listing(small)
    hub.local[YOU] = small
    words = infused(faces=listed(face), backbone__path=DEV, adapter__path=YOU)
    answer = typed(words, "--dry")
    assert answer.status == 2
    assert answer.line.startswith(f"not ready: no backbone {DEV}; no adapter {YOU}")
    assert hub.names(YOU) == ["InfuseNetModel/config.json"]
    assert set(hub.names(DEV)) == {name for name in FLUX_DEV if name.endswith(".json")}


def test_what_is_downloaded_is_what_a_run_reads(hub, typed, face, tmp_path):
    """And no second form of it; then the run is continued without a network, as the same models."""
    for repository, folder in ((DEV, "flux-dev"), (YOU, "infinite-you")):
        hub.local[repository] = INFINITE_YOU / folder
        hub.sizes[repository] = listing(INFINITE_YOU / folder) | OTHER_FORMS
    words = infused(
        faces=listed(face), backbone__path=DEV, adapter__path=YOU, out=tmp_path / "run.zarr"
    )
    answer = typed(words)
    assert answer.status == 0, answer.err
    for repository, folder in ((DEV, "flux-dev"), (YOU, "infinite-you")):
        assert hub.names(repository) == sorted(listing(INFINITE_YOU / folder))
    weights = open_recorded(tmp_path / "run.zarr").attrs["weights"]
    made = {name for name in weights if name.startswith(("backbone/", "adapter/"))}
    assert len(made) == 6  # four of FLUX, InfuseNet and its projection
    hub.offline, hub.asked = True, []
    assert "nothing to do" in typed(words).out
    assert file_hashes(study_of(words), [])["weights"].keys() >= made
    backbone = {"name": "flux_dev", "path": DEV}
    assert (vae_folder(None, {"configuration": {"backbone": backbone}}) / "config.json").is_file()
    outline(study_of(words))
    assert hub.asked == []


def test_weights_that_are_not_here_and_not_to_be_reached(hub, typed):
    hub.offline = True
    line = typed(tiny(backbone__path=DEV)).line
    assert line.startswith(f"backbone flux_dev {DEV!r} is not on this machine")
    hub.offline = False
    outline(study_of(tiny(backbone__path=DEV)))  # configurations alone are here
    hub.offline = True
    with pytest.raises(WeightsError, match="is not on this machine and the hub was not reached"):
        folder_of(study_of(tiny(backbone__path=DEV)))


def test_a_gate_behind_diffusers_own_error_is_told(hub, monkeypatch):
    """diffusers goes on without the hub first, and then raises its own error from the hub's."""
    request = httpx.Request("GET", "https://hub")
    gated = errors.GatedRepoError("no", response=httpx.Response(403, request=request))

    def refuse(*args: object, **more: object) -> None:
        raise gated

    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.model_info", refuse)
    with pytest.raises(WeightsError, match=r"is gated: accept its licence .*hf auth login"):
        folder_of(study_of(tiny(backbone__path=DEV)))
