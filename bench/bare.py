"""The ceiling: an ASGI application that does nothing but read a request's XML and write an answer's, with lxml.

``python -m bench.bare HTTP LOOP`` serves it by uvicorn (``h11 asyncio``, ``httptools uvloop``) or by granian
(``granian asyncio``) on a free port, and prints the address. What our service answers in one process can't be more.
"""

import asyncio
import socket
import sys
from importlib import import_module
from typing import Any

import uvicorn
from lxml import etree

Message = dict[str, Any]


async def application(scope: Message, receive: Any, send: Any) -> None:
    """Answer each update check that there is no update."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = etree.fromstring(body)
    answer = etree.Element("response", protocol="3.0", server="bare")
    etree.SubElement(answer, "daystart", elapsed_seconds="0")
    for app in asked.iter("app"):
        element = etree.SubElement(answer, "app", appid=app.get("appid", ""), status="ok")
        etree.SubElement(element, "updatecheck", status="noupdate")
    text = etree.tostring(answer, xml_declaration=True, encoding="UTF-8")
    headers = [(b"content-type", b"text/xml"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def main(http: str, loop: str) -> None:
    """Serve until the process is ended."""
    if http == "granian":
        granian = import_module("granian.server.embed")  # installed by hand, only to be measured
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        print(f"http://127.0.0.1:{port}", flush=True)
        server = granian.Server(application, address="127.0.0.1", port=port, interface="asginl", log_enabled=False)
        asyncio.run(server.serve())
        return
    family = socket.create_server(("127.0.0.1", 0), backlog=2048)
    # protocol 0 would keep asyncio from setting TCP_NODELAY
    bound = socket.socket(family.family, family.type, socket.IPPROTO_TCP, family.detach())
    print(f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    config = uvicorn.Config(application, http=http, loop=loop, log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
