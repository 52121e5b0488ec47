"""Local servers with OpenAI's API: one with rules and faults, one with a model."""

import json
import math
import ssl
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise a reply's content waits 40 ms for the receipt of its headers

    def log_message(self, *_):
        pass

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def send(self, status: int, value, headers: dict | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):  # the client has given up
            self.wfile.write(content)

    def send_half(self, value) -> None:
        """Half of a reply, after which the connection is closed."""
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # otherwise some of many concurrent connections are refused


@contextmanager
def serving(handler, port: int = 0, certificate: tuple[str, str] | None = None):
    """The base URL of a server with this handler, at a free port if none is given.

    With a `certificate`, the files of it and of its key, the server speaks TLS.
    """
    server = Server(("127.0.0.1", port), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http{'s' * bool(certificate)}://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ALTERNATIVES = 20  # most probable tokens at each position, as the judge requests
IMPOSSIBLE = -9999.0  # OpenAI's log-probability of an impossible token


def completion(model: str, text: str, tops: list[list[tuple[str, float]]] = (), prompt_tokens: int = 100) -> dict:
    """A chat completion; `tops` are the most probable tokens at each position, padded with impossible ones."""
    entries = [
        {
            "token": top[0][0],
            "logprob": math.log(top[0][1]),
            "bytes": None,
            "top_logprobs": [
                *({"token": token, "logprob": math.log(mass), "bytes": None} for token, mass in top),
                *({"token": f"<{n}>", "logprob": IMPOSSIBLE, "bytes": None} for n in range(len(top), ALTERNATIVES)),
            ],
        }
        for top in tops
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": entries} if entries else None,
            }
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 1, "total_tokens": prompt_tokens + 1},
    }


class RuleServer:
    """Replies by a function from the last message to (text, tops), or to (status, body).

    `faults` are the replies to the first attempts at each message: a status, "slow" (over the client's time limit,
    without a wait) or "cut" (half an answer). `received` counts the attempts at each message, `paid` the computed
    answers; `headers` are those of the last request, `requests` all of them. `models` are the names that the server
    lists; None: it has no list. `refuses` gives the reason for an error 400 to a request, or "".
    """

    def __init__(self, answer, faults=(), models=None, refuses=lambda request: ""):
        self.answer, self.faults, self.models, self.refuses = answer, list(faults), models, refuses
        self.requests = []
        self.received, self.paid, self.headers, self.most = Counter(), Counter(), {}, 0
        self.lock, self.under_way = threading.Lock(), 0

    @contextmanager
    def running(self):
        rules = self

        class Chat(Handler):
            def do_GET(self):
                if rules.models is None:
                    return self.send(404, {"detail": "Not Found"})
                data = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in rules.models]
                return self.send(200, {"object": "list", "data": data})

            def do_POST(self):
                request = json.loads(self.body())
                text = request["messages"][-1]["content"]
                with rules.lock:
                    rules.requests.append(request)
                    rules.received[text] += 1
                    attempt = rules.received[text]
                    rules.headers = {name.lower(): text for name, text in self.headers.items()}
                    rules.under_way += 1
                    rules.most = max(rules.most, rules.under_way)
                try:
                    self.reply(request, text, rules.faults[attempt - 1] if attempt <= len(rules.faults) else None)
                finally:
                    with rules.lock:
                        rules.under_way -= 1

            def reply(self, request, text, fault):
                if isinstance(fault, int):
                    headers = {"Retry-After": "0.01", "retry-after-ms": "10"}
                    return self.send(fault, {"error": {"message": "try later"}}, headers)
                if why := rules.refuses(request):
                    return self.send(400, {"error": {"message": why}})
                first, second = rules.answer(text)
                if isinstance(first, int):
                    return self.send(first, second)
                found = completion(request["model"], first, second)
                with rules.lock:
                    rules.paid[text] += 1
                if fault == "slow":
                    return self.send(200, found, {"Slow": "yes"})
                if fault == "cut":
                    return self.send_half(found)
                return self.send(200, found)

        with serving(Chat) as address, pytest.MonkeyPatch.context() as patch:
            patch.setattr(httpx2.HTTPTransport, "handle_request", _in_time(httpx2.HTTPTransport.handle_request))
            self.address = address
            yield self


def _in_time(handle_request):
    """The same for a client that finds an answer marked as slow to come after its time limit."""

    def handle(transport, request):
        response = handle_request(transport, request)
        if "Slow" in response.headers and request.extensions["timeout"]["read"]:
            response.close()
            raise httpx2.ReadTimeout("The read operation timed out", request=request)
        return response

    return handle


@contextmanager
def model_server(folder, port: int = 0):
    """A server with the model in `folder` and its log-probabilities.

    Like vLLM's, it has a health check and `continue_final_message`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    lock = threading.Lock()

    @torch.inference_mode()
    def answer(request: dict) -> dict:
        goes_on = request.get("continue_final_message", False)
        ids = tokenizer.apply_chat_template(
            request["messages"],
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            return_dict=True,
            return_tensors="pt",
        )["input_ids"]
        start, tops, past, new = ids.shape[1], [], None, ids
        for _ in range(request["max_tokens"]):
            found = model(new, past_key_values=past, use_cache=True)
            past, scores = found.past_key_values, found.logits[0, -1].softmax(-1)
            masses, tokens = scores.topk(20)
            tops.append(list(zip(tokenizer.batch_decode(tokens[:, None]), masses.tolist(), strict=True)))
            if tokens[0] == tokenizer.eos_token_id:
                break
            new = tokens[None, :1]
            ids = torch.cat([ids, new], 1)
        text = tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        return completion(request["model"], text, tops if request.get("logprobs") else (), start)

    class Chat(Handler):
        def do_GET(self):
            self.send(200, {})

        def do_POST(self):
            request = json.loads(self.body())
            with lock:
                found = answer(request)
            self.send(200, found)

    with serving(Chat, port) as address:
        yield address
