"""A hub without a network: repositories that list files with sizes, and what is asked of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from diffusers.pipelines import pipeline_utils
from huggingface_hub import _snapshot_download as snapshot
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`sizes`: bytes of every file by repository and name; `local`: a folder with what some of them hold.

    asked: repository and name of every file that was downloaded, in order. offline: nothing answers.
    """

    cache: Path
    sizes: dict[str, Mapping[str, int]] = field(default_factory=dict)
    local: dict[str, Path] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    offline: bool = False

    def names(self, repository: str) -> list[str]:
        """Files that were downloaded of a repository."""
        return sorted(name for of, name in self.asked if of == repository)

    def gigabytes(self, repository: str) -> float:
        """Of what was downloaded of a repository."""
        return sum(self.sizes[repository][name] for name in self.names(repository)) / 1e9

    def repo_info(self, repo_id: str, **_: Any) -> Any:
        """As `HfApi.repo_info` and `model_info` answer."""
        if self.offline:
            raise OfflineModeIsEnabled("offline")
        siblings = [SimpleNamespace(rfilename=name) for name in self.sizes[repo_id]]
        return SimpleNamespace(sha=COMMIT, siblings=siblings)

    def list_repo_tree(self, repo_id: str, **_: Any) -> list[RepoFile]:
        """As `HfApi.list_repo_tree` answers."""
        return [RepoFile(path=n, size=size, oid="") for n, size in self.sizes[repo_id].items()]

    def download(self, repo_id: str, filename: str, **more: Any) -> str:
        """As `hf_hub_download`, into the cache; a file that `local` does not have is empty."""
        folder = self.cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / COMMIT
        file = folder / filename
        if not file.is_file():
            if self.offline or more.get("local_files_only"):
                raise LocalEntryNotFoundError("not in the cache")
            self.asked.append((repo_id, filename))
            file.parent.mkdir(parents=True, exist_ok=True)
            held = self.local.get(repo_id, self.cache) / filename
            file.write_bytes(held.read_bytes() if held.is_file() else b"")
        return str(file)

    def put(self, monkeypatch: Any) -> None:
        """In place of the hub, for huggingface_hub and diffusers."""
        api = SimpleNamespace(repo_info=self.repo_info, list_repo_tree=self.list_repo_tree)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(self.cache))
        monkeypatch.setattr(snapshot, "HfApi", lambda **_: api)
        for module in (snapshot, pipeline_utils):
            monkeypatch.setattr(module, "hf_hub_download", self.download)
        monkeypatch.setattr(pipeline_utils, "model_info", self.repo_info)
        monkeypatch.setattr(
            pipeline_utils, "_resolve_revision", lambda *_, **more: more["revision"]
        )
