"""vLLM's wire format as a program: `vllm serve MODEL --port N ...` answers with the name of what is asked."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar


class Handler(BaseHTTPRequestHandler):
    """What vLLM 0.11 documents of its OpenAI-compatible server and of adapters at runtime."""

    base: ClassVar[str] = ""
    adapters: ClassVar[dict[str, str]] = {}
    calls: ClassVar[list[dict[str, Any]]] = []
    enabled: ClassVar[bool] = False

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in (self.base, *self.adapters)]
            self.reply(200, {"object": "list", "data": models})
        else:
            self.reply(200, {"calls": self.calls, "adapters": self.adapters, "arguments": sys.argv[1:]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/chat/completions":
            self.complete(body)
        elif not self.enabled:
            self.reply(404, {"detail": "Not Found"})
        elif self.path == "/v1/load_lora_adapter":
            self.load(body["lora_name"], body["lora_path"])
        elif self.path == "/v1/unload_lora_adapter":
            self.adapters.pop(body["lora_name"], None)
            self.reply(200, "Success")

    def load(self, name: str, path: str) -> None:
        if name in self.adapters:
            words = f"The lora adapter '{name}' has already been loaded."
            self.reply(400, {"object": "error", "message": words, "type": "InvalidUserInput", "code": 400})
        elif not (Path(path) / "adapter_config.json").exists():
            words = f"Loading lora {name} failed: No adapter found for {path}"
            self.reply(404, {"object": "error", "message": words, "type": "NotFoundError", "code": 404})
        else:
            self.adapters[name] = path
            self.reply(200, f"Success: LoRA adapter '{name}' added successfully.")

    def complete(self, body: dict[str, Any]) -> None:
        self.calls.append(body)
        model = body["model"]
        if model not in (self.base, *self.adapters):
            words = f"The model `{model}` does not exist."
            self.reply(404, {"object": "error", "message": words, "code": 404})
            return
        question = body["messages"][-1]["content"]
        schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema", {})
        labels = schema.get("properties", {}).get("label", {}).get("enum", [])
        label = next((label for label in labels if label in question), labels[0] if labels else model)
        text = json.dumps({"label": label}) if labels else label
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}
        content = {"id": "c", "object": "chat.completion", "model": model}
        self.reply(200, {**content, "choices": [choice], "usage": usage})

    def reply(self, status: int, content: Any) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: Any) -> None:
        pass


def server(base: str, port: int, *, adapters: bool) -> ThreadingHTTPServer:
    kind = type("Serving", (Handler,), {"base": base, "adapters": {}, "calls": [], "enabled": adapters})
    return ThreadingHTTPServer(("127.0.0.1", port), kind)


if __name__ == "__main__":
    if "fails" in sys.argv[2]:
        sys.exit("ValueError: No supported config format found in that model")
    name = sys.argv[sys.argv.index("--served-model-name") + 1]
    port = int(sys.argv[sys.argv.index("--port") + 1])
    updating = os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "True"
    server(name, port, adapters=updating and "--enable-lora" in sys.argv).serve_forever()
