"""What the gateway is measured beside: endpoints that check nothing.

Run with Weir's own Python: `bare_gateway.py http PORT TOPIC` or `bare_gateway.py coap PORT`. By HTTP a Starlette route
as its documentation shows it, on uvicorn as it comes (uvloop and httptools, where they are there): each reading of a
body is a record, and the answer waits for Kafka (acks=all, idempotent). No token, no contract, no registry, no dead
letters. By CoAP an aiocoap resource that answers 2.04, and writes nowhere.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import aiocoap
import uvicorn
from aiocoap import resource
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from connections import kafka
from fleet.settings import Settings


def http(port: int, topic: str) -> None:
    producer = kafka.producer(Settings.load(role="gateway"), "bench-bare")

    async def sent(values: list[bytes], key: bytes) -> None:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        left = len(values)

        def one_more(_: Any) -> None:
            nonlocal left  # on the producer's thread, one at a time
            left -= 1
            if not left:
                loop.call_soon_threadsafe(done.set_result, None)

        for value in values:
            producer.send(topic, value, key).add_callback(one_more)
        await done

    async def take(request: Request) -> JSONResponse:
        body = await request.body()
        said = json.loads(body)
        if isinstance(said, list):
            await sent([json.dumps(one).encode() for one in said], said[0]["device_id"].encode())
        else:
            await sent([body], said["device_id"].encode())
        return JSONResponse({"accepted": len(said) if isinstance(said, list) else 1}, 202)

    app = Starlette(routes=[Route("/v1/readings", take, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


class Taken(resource.Resource):
    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        return aiocoap.Message(code=aiocoap.CHANGED, payload=b'{"accepted": 1}')


async def coap(port: int) -> None:
    site = resource.Site()
    site.add_resource(["v1", "readings"], Taken())
    await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port), transports=["udp6"])
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    if sys.argv[1] == "http":
        http(int(sys.argv[2]), sys.argv[3])
    else:
        asyncio.run(coap(int(sys.argv[2])))
