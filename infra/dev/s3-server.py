#!/usr/bin/env python3
"""Moto's S3 and SQS on one loopback port, with faults to order.

    POST /__fault?status=503&seconds=5     answer 503 for five seconds
    POST /__fault?status=500&count=3       answer 500 to the next three requests
         &method=PUT,POST                  only these methods
         &key=metadata                     only where the path contains this
         &query=tagging                    only where the query contains this
         &target=ReceiveMessage            only this action of SQS
         &code=ExpiredToken                the error's code, which follows from the status otherwise
         &when=after                       carry the request out, then answer the error: the outcome is ambiguous
    POST /__fault?clear                    serve as usual again
    GET  /__fault                          {"fault": ..., "requests": {...}, "faulted": N}

One process instead of moto behind a proxy: nothing is copied twice, and "carry out, then fail" is exact.
"""
import argparse
import json
import logging
import resource
import threading
import time
from dataclasses import asdict, dataclass
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wsgi import get_input_stream

CODES = {
    301: "PermanentRedirect",
    400: "InvalidRequest",
    403: "AccessDenied",
    500: "InternalError",
    502: "BadGateway",
    503: "SlowDown",
    504: "GatewayTimeout",
}
REASONS = {301: "Moved Permanently", 400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error", 502: "Bad Gateway", 503: "Slow Down", 504: "Gateway Timeout"}


@dataclass
class Fault:
    """An order to fail: until `ends` (monotonic seconds) or until `left` requests have failed, whichever comes first."""

    status: int
    ends: float | None
    left: int | None
    methods: list[str]
    key: str
    query: str
    target: str
    code: str
    when: str


class RequestHandler(MotoRequestHandler):
    """Says `100 Continue` once: Python's server and Werkzeug each say it, and a client that uploads may stall on the second."""

    def handle_expect_100(self):
        return True


class FaultyApp:
    """A WSGI application that answers for moto while a fault is ordered."""

    def __init__(self, moto):
        self.moto = moto
        self.lock = threading.Lock()
        self.fault: Fault | None = None
        self.requests: dict[str, int] = {}
        self.faulted = 0

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/__fault":
            return self.control(environ, start_response)
        fault = self.take(environ)
        if fault is None:
            return self.moto(environ, start_response)
        if fault.when == "after":
            answer = self.moto(environ, lambda *_args, **_kwargs: lambda _data: None)
            for _chunk in answer:
                pass
            if hasattr(answer, "close"):
                answer.close()
        else:
            # An unread body would turn the answer into a connection reset, which is another fault.
            body = get_input_stream(environ)
            while body.read(1 << 20):
                pass
        return self.error(fault, environ, start_response)

    def take(self, environ) -> Fault | None:
        """The fault that hits this request, if one does."""
        method = environ["REQUEST_METHOD"]
        # `AmazonSQS.ReceiveMessage`: the JSON protocol of SQS has one path for all actions.
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        with self.lock:
            self.requests[method] = self.requests.get(method, 0) + 1
            fault = self.fault
            if fault is None:
                return None
            if (fault.ends is not None and time.monotonic() >= fault.ends) or fault.left == 0:
                self.fault = None
                return None
            if (fault.methods and method not in fault.methods) or fault.key not in environ["PATH_INFO"]:
                return None
            if fault.query not in environ["QUERY_STRING"] or fault.target not in ("", action):
                return None
            if fault.left is not None:
                fault.left -= 1
            self.faulted += 1
            return fault

    def control(self, environ, start_response):
        status = "200 OK"
        error = None
        if environ["REQUEST_METHOD"] == "POST":
            try:
                fault = parse(environ["QUERY_STRING"])
            except (KeyError, ValueError) as cause:
                status, error = "400 Bad Request", f"bad fault {environ['QUERY_STRING']!r}: {cause}"
            else:
                with self.lock:
                    self.fault = fault
        with self.lock:
            state = {"fault": self.fault and asdict(self.fault), "requests": self.requests, "faulted": self.faulted}
            body = json.dumps({"error": error} if error else state).encode() + b"\n"
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    @staticmethod
    def error(fault: Fault, environ, start_response):
        status = fault.status
        if "HTTP_X_AMZ_TARGET" in environ:
            body = json.dumps({"__type": f"com.amazonaws.sqs#{fault.code}", "message": "fault ordered by the test"}).encode()
            headers = [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(body)))]
            start_response(f"{status} {REASONS[status]}", headers)
            return [body]
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{fault.code}</Code><Message>fault ordered by the test</Message>"
            f"<Resource>{environ['PATH_INFO']}</Resource></Error>"
        ).encode()
        start_response(f"{status} {REASONS[status]}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def parse(query: str) -> Fault | None:
    """The fault that a query string orders; None for `clear`."""
    fields = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    if "clear" in fields:
        return None
    unknown = set(fields) - {"status", "seconds", "count", "method", "key", "query", "target", "code", "when"}
    if unknown:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    status = int(fields["status"])
    if status not in CODES:
        raise ValueError(f"status must be one of {', '.join(map(str, CODES))}")
    when = fields.get("when", "before")
    if when not in ("before", "after"):
        raise ValueError("when must be before or after")
    return Fault(
        status=status,
        ends=time.monotonic() + float(fields["seconds"]) if "seconds" in fields else None,
        left=int(fields["count"]) if "count" in fields else None,
        methods=[m for m in fields.get("method", "").upper().split(",") if m],
        key=fields.get("key", ""),
        query=fields.get("query", ""),
        target=fields.get("target", ""),
        code=fields.get("code", CODES[status]),
        when=when,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mark", default="", help="any text, by which this process is found among others")
    args = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # Moto keeps every large object in an open temporary file.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    app = FaultyApp(DomainDispatcherApplication(create_backend_app))
    make_server("127.0.0.1", args.port, app, threaded=True, request_handler=RequestHandler).serve_forever()


if __name__ == "__main__":
    main()
