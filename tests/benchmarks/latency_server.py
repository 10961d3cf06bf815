"""`python -m tests.benchmarks.latency_server SECONDS`: answers every request of both wire formats after that long; prints its port.

In a process of its own and without threads, so that what is measured is who asks, not who answers.
"""

from __future__ import annotations

import asyncio
import json
import sys

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


async def serve(latency: float) -> None:
    """Until killed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            path = head.split(" ", 2)[1]
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length"))
            await reader.readexactly(length)
            await asyncio.sleep(latency)
            body = json.dumps(MESSAGE if path == "/v1/messages" else COMPLETION).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return ""


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
