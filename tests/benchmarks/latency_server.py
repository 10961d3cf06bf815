"""`python -m tests.benchmarks.latency_server SECONDS`: answers every request of both wire formats after that long; prints its port.

In a process of its own and without threads, so that what is measured is who asks, not who answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

REPLY = '{"level": 1, "quote": "", "cannot_tell": false}'
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "tiny",
    "content": [{"type": "text", "text": REPLY}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 400, "output_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420},
}


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def reply(body: dict[str, Any]) -> bytes:
    """What is sent back, written once: the server's own work must not count as the asker's."""
    text = json.dumps(body).encode()
    return HEAD % len(text) + text


class Talk(asyncio.Protocol):
    """One connection: each request is answered `latency` seconds after its last byte came."""

    def __init__(self, latency: float, replies: dict[bytes, bytes]) -> None:
        self.latency, self.replies, self.came = latency, replies, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """One request after the other; the next comes after the answer."""
        self.came += data
        head, ended, body = self.came.partition(b"\r\n\r\n")
        if not ended:
            return
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
        if len(body) < length:
            return
        self.came = body[length:]
        answer = self.replies.get(head.split(b" ", 2)[1], self.replies[b""])
        asyncio.get_running_loop().call_later(self.latency, self.transport.write, answer)


async def serve(latency: float) -> None:
    """Until killed."""
    replies = {b"/v1/messages": reply(MESSAGE), b"": reply(COMPLETION)}
    server = await asyncio.get_running_loop().create_server(lambda: Talk(latency, replies), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
