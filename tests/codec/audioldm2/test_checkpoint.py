"""AudioLDM 2 from a hub: the real client, and a server on this machine that answers like one."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aldm.codec import Codec
from aldm.codec.diffusion.ddcm import DDCM
from aldm.codec.errors import ModelError
from aldm.format.stream import read_stream
from conftest import clip

pytestmark = pytest.mark.filterwarnings("ignore::aldm.codec.errors.AldmWarning")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves a folder as cvssp/audioldm2-music.

    Attributes:
        refusal: status and X-Error-Code instead of every file.
        sent: names of files that went out.
    """

    def __init__(self, root: Path):
        self.root, self.refusal, self.sent = root, (0, ""), set[str]()
        self.files = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if "/resolve/" not in path:
            found: Any = {"id": "x", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            if "/tree/" in path:
                sizes = {name: (self.root / name).stat().st_size for name in self.files}
                found = [{"type": "file", "path": name, "size": sizes[name], "oid": name} for name in self.files]
            return 200, json.dumps(found).encode(), {"Content-Type": "application/json"}
        if self.refusal[0]:
            return self.refusal[0], b"", {"X-Error-Code": self.refusal[1]}
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        self.sent.add(name)
        data = (self.root / name).read_bytes()
        return 200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}


@pytest.fixture
def hub(text_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    root = shutil.copytree(text_checkpoint, tmp_path / "served")
    weights = root / "vae/diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_suffix(".fp16.safetensors"))
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, data, headers = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", here)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", here)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield hub
    server.shutdown()
    server.server_close()


def test_each_command_fetches_what_it_needs_and_once(hub: Hub) -> None:
    def fetched() -> set[str]:
        names, hub.sent = hub.sent, set()
        assert not any("fp16" in name for name in names)
        return {name.split("/")[0] for name in names}

    wave = clip("speech")[:32000]
    codec = Codec.from_pretrained("music")
    data = codec.encode(wave, 16000)
    assert fetched() == {"vae"}
    assert read_stream(data).comments == [f"ALDM_MODEL=cvssp/audioldm2-music@{COMMIT}"]
    assert codec.decode(data).shape == (1, 32000)
    assert fetched() == {"vocoder"}
    codec.encode(wave, 16000, layers="ddcm", ddcm=DDCM(2, codebook=16))
    assert fetched() == {"unet", "scheduler"}
    codec.synthesize("a dog", 0.5, steps=1)
    read = {"tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "projection_model", "language_model"}
    assert fetched() == read
    Codec.from_pretrained("music").decode(data)
    assert not fetched()


def test_refusals_are_explained(hub: Hub) -> None:
    for refusal, message in (
        ((403, "GatedRepo"), "asks for its terms to be accepted: do that at .*cvssp/audioldm2-music"),
        ((404, "EntryNotFound"), "cannot get vae/ of cvssp/audioldm2-music"),
    ):
        hub.refusal = refusal
        with pytest.raises(ModelError, match=message) as found:
            Codec.from_pretrained("music")
        assert "\n" not in str(found.value)
