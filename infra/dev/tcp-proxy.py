#!/usr/bin/env python3
"""A TCP proxy on loopback that breaks connections at a place that is set.

    tcp-proxy.py --to 127.0.0.1:5432 [--listen 127.0.0.1:0] [--control 127.0.0.1:0] [--with-parent]

prints `ready listen=HOST:PORT control=HOST:PORT`, then takes orders over HTTP:

    POST /set?mode=pass|blackhole|refuse&delay_ms=N   blackhole: connected, but no byte moves; refuse: nothing listens
    POST /cut                                         reset every connection now
    POST /arm?to=server|client&contains=TEXT&then=…   reset the connection that carries TEXT (or, with bytes=N, the one
                                                      that has carried N bytes) in that direction; count=1 such connections
         then=before                                  … before those bytes are passed on: the request never arrived
         then=after                                   … right after: neither side knows
         then=reply                                   … when the peer's answer is there, without passing it on: the
                                                      request was carried out and its answer is lost
    POST /disarm
    GET  /state                                       connections, accepted, fired, and what is set
    GET  /wait?fired=N&seconds=S                      answers when N armed cuts have happened in all; 408 when time is up

Prepared statements send their text once per connection: match something in the parameters instead.
"""
import argparse
import asyncio
import json
import os
import socket
import struct
from urllib.parse import parse_qs, urlsplit

CHUNK = 1 << 16


class Bad(Exception):
    """An order that cannot be carried out; the text says why."""


class Connection:
    """One client connection and its counterpart to the server."""

    def __init__(self, proxy, client, server):
        self.proxy = proxy
        self.writers = {"client": client, "server": server}
        self.carried = {"client": 0, "server": 0}
        self.tail = {"client": b"", "server": b""}
        # Set to a direction once its next chunk is the answer that must not arrive.
        self.swallow = None

    async def pump(self, reader, to):
        """Carry bytes in one direction until an end closes or the connection is cut."""
        try:
            while data := await reader.read(CHUNK):
                await self.proxy.passing.wait()
                if self.proxy.delay_ms:
                    await asyncio.sleep(self.proxy.delay_ms / 1000)
                if self.swallow == to:
                    self.proxy.fire(self)
                    return
                order = self.proxy.match(self, to, data)
                if order == "before":
                    self.proxy.fire(self)
                    return
                self.writers[to].write(data)
                await self.writers[to].drain()
                if order == "after":
                    self.proxy.fire(self)
                    return
                if order == "reply":
                    self.swallow = "client" if to == "server" else "server"
            if self.writers[to].can_write_eof():
                self.writers[to].write_eof()
        except (ConnectionError, RuntimeError, OSError):
            self.cut()

    def cut(self):
        """Reset both sides: what is still in a buffer is lost, as when a machine disappears."""
        for writer in self.writers.values():
            sock = writer.get_extra_info("socket")
            if sock is not None and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """The listener, its connections and the orders in force."""

    def __init__(self, listen, to):
        self.listen, self.to = listen, to
        self.server = None
        self.mode, self.delay_ms = "pass", 0
        self.passing = asyncio.Event()
        self.passing.set()
        self.armed = None
        self.connections = set()
        self.accepted = self.fired = 0
        self.fired_changed = asyncio.Condition()

    async def open(self):
        self.server = await asyncio.start_server(self.accept, *self.listen)
        self.listen = self.server.sockets[0].getsockname()[:2]

    async def accept(self, client_reader, client_writer):
        self.accepted += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.to)
        except OSError:
            client_writer.transport.abort()
            return
        connection = Connection(self, client_writer, server_writer)
        self.connections.add(connection)
        try:
            await asyncio.gather(connection.pump(client_reader, "server"), connection.pump(server_reader, "client"))
        finally:
            self.connections.discard(connection)
            client_writer.close()
            server_writer.close()

    def match(self, connection, to, data):
        """What is ordered for this chunk: None, or the `then` of the armed cut, which is thereby used up."""
        seen = connection.tail[to] + data
        connection.carried[to] += len(data)
        armed = self.armed
        text = armed["contains"] if armed else b""
        connection.tail[to] = seen[-255:]
        if armed is None or armed["to"] != to:
            return None
        if text not in seen if text else connection.carried[to] < armed["bytes"]:
            return None
        connection.tail[to] = b""
        armed["count"] -= 1
        if armed["count"] == 0:
            self.armed = None
        return armed["then"]

    def fire(self, connection):
        connection.cut()
        self.fired += 1
        asyncio.ensure_future(self.announce())

    async def announce(self):
        async with self.fired_changed:
            self.fired_changed.notify_all()

    def cut_all(self):
        for connection in list(self.connections):
            connection.cut()

    async def set(self, mode, delay_ms):
        if mode not in ("pass", "blackhole", "refuse"):
            raise Bad(f"mode must be pass, blackhole or refuse, not {mode}")
        if mode == "refuse" and self.mode != "refuse":
            self.server.close()
            self.cut_all()
        if mode != "refuse" and self.mode == "refuse":
            await self.open()
        self.mode, self.delay_ms = mode, delay_ms
        if mode == "blackhole":
            self.passing.clear()
        else:
            self.passing.set()

    def arm(self, fields):
        then, to = fields.get("then", "before"), fields.get("to", "server")
        if then not in ("before", "after", "reply") or to not in ("server", "client"):
            raise Bad("then must be before, after or reply, and to must be server or client")
        if ("contains" in fields) == ("bytes" in fields):
            raise Bad("say either contains=TEXT or bytes=N")
        text = fields.get("contains", "").encode()
        if len(text) > 256 or ("contains" in fields and not text):
            raise Bad("contains must hold 1 to 256 bytes")
        # What a connection carried before the order is no match.
        for connection in self.connections:
            connection.tail = {"client": b"", "server": b""}
        self.armed = {"to": to, "contains": text, "bytes": int(fields.get("bytes", 0)), "then": then, "count": int(fields.get("count", 1))}

    async def wait(self, fired, seconds):
        async with self.fired_changed:
            await asyncio.wait_for(self.fired_changed.wait_for(lambda: self.fired >= fired), seconds)

    def state(self):
        armed = self.armed and {**self.armed, "contains": self.armed["contains"].decode()}
        return {"connections": len(self.connections), "accepted": self.accepted, "fired": self.fired, "mode": self.mode, "delay_ms": self.delay_ms, "armed": armed}

    async def obey(self, method, path, fields):
        """Carry out one order and return (HTTP status, answer)."""
        try:
            match method, path:
                case "GET", "/state":
                    pass
                case "GET", "/wait":
                    await self.wait(int(fields["fired"]), float(fields.get("seconds", 10)))
                case "POST", "/set":
                    await self.set(fields.get("mode", self.mode), int(fields.get("delay_ms", self.delay_ms)))
                case "POST", "/cut":
                    self.cut_all()
                case "POST", "/arm":
                    self.arm(fields)
                case "POST", "/disarm":
                    self.armed = None
                case _:
                    return "404 Not Found", {"error": f"no such order: {method} {path}"}
        except asyncio.TimeoutError:
            return "408 Request Timeout", self.state()
        except (Bad, KeyError, ValueError) as cause:
            return "400 Bad Request", {"error": str(cause)}
        return "200 OK", self.state()

    async def control(self, reader, writer):
        """One HTTP request per connection is all that a test needs."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, target, _version = head.split("\r\n", 1)[0].split(" ")
            url = urlsplit(target)
            fields = {name: values[-1] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
            status, answer = await self.obey(method, url.path, fields)
            body = json.dumps(answer).encode() + b"\n"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def address(text):
    host, _, port = text.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        raise argparse.ArgumentTypeError("only loopback addresses: 127.0.0.1:PORT")
    return "127.0.0.1", int(port)


async def serve(args):
    parent = os.getppid()
    proxy = Proxy(args.listen, args.to)
    await proxy.open()
    control = await asyncio.start_server(proxy.control, *args.control)
    host, port = control.sockets[0].getsockname()[:2]
    print(f"ready listen={proxy.listen[0]}:{proxy.listen[1]} control={host}:{port}", flush=True)
    while not args.with_parent or os.getppid() == parent:
        await asyncio.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=address, required=True)
    parser.add_argument("--listen", type=address, default=("127.0.0.1", 0))
    parser.add_argument("--control", type=address, default=("127.0.0.1", 0))
    parser.add_argument("--with-parent", action="store_true", help="end when the process that started this one ends")
    try:
        asyncio.run(serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
