"""An etcd server in this process that answers watches by a script: for what a real one does only on a bad day."""

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from queue import SimpleQueue
from typing import Any

import grpc
from etcd3 import etcdrpc

from outrider.etcd.seam import Endpoint

Script = Callable[["ScriptedStream"], Iterator[Any]]


class ScriptedStream:
    """One watch stream, as the server sees it.

    Attributes:
        create: The client's create request.
        metadata: What the client sent along.
        progress: How often the client asked for progress.
        creates: The client's further create requests.
    """

    def __init__(self, create: Any, metadata: dict[str, str]) -> None:
        self.create, self.metadata = create, metadata
        self.progress = threading.Semaphore(0)
        self.creates: SimpleQueue[Any] = SimpleQueue()
        self.ended = threading.Event()


class ScriptedEtcd:
    """Streams are answered by ``scripts`` in turn, the last one again and again.

    Attributes:
        streams: All streams so far.
        store: What listings return, with their revision.
        denies: Whether nothing may be read.
    """

    def __init__(
        self, *scripts: Script, version: str = "3.5.16", leader: int = 1, port: int = 0, credentials: Any = None
    ) -> None:
        self._scripts = scripts
        self.version, self.leader = version, leader
        self.streams: list[ScriptedStream] = []
        self.store: tuple[int, list[Any]] = (1, [])
        self.listings = self.sign_ins = 0
        self.denies = False
        self._server = grpc.server(futures.ThreadPoolExecutor(16, thread_name_prefix="scripted"))
        etcdrpc.add_WatchServicer_to_server(self, self._server)
        etcdrpc.add_MaintenanceServicer_to_server(self, self._server)
        etcdrpc.add_KVServicer_to_server(self, self._server)
        etcdrpc.add_AuthServicer_to_server(self, self._server)
        address = f"127.0.0.1:{port}"
        bound = (
            self._server.add_insecure_port(address)
            if credentials is None
            else self._server.add_secure_port(address, credentials)
        )
        self.endpoint = Endpoint(host="127.0.0.1", port=bound)
        self._server.start()

    def __getattr__(self, name: str) -> Any:
        """Every method of etcd that no script needs."""
        if name[:1].isupper():
            return lambda request, context: context.abort(grpc.StatusCode.UNIMPLEMENTED, name)
        raise AttributeError(name)

    def Status(self, request: Any, context: Any) -> Any:  # noqa: N802
        return etcdrpc.StatusResponse(version=self.version, leader=self.leader)

    def Authenticate(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.sign_ins += 1
        return etcdrpc.AuthenticateResponse(token=f"token-{self.sign_ins}")

    def Range(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.listings += 1
        if self.denies:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        revision, kvs = self.store
        return etcdrpc.RangeResponse(header=header(revision), kvs=kvs)

    def Watch(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        stream = ScriptedStream(next(requests).create_request, dict(context.invocation_metadata()))
        context.add_callback(stream.ended.set)
        self.streams.append(stream)
        script = self._scripts[min(len(self.streams), len(self._scripts)) - 1]

        def note_requests() -> None:
            try:
                for request in requests:
                    match request.WhichOneof("request_union"):
                        case "create_request":
                            stream.creates.put(request.create_request)
                        case "progress_request":
                            stream.progress.release()
            except grpc.RpcError:
                pass
            except Exception:  # noqa: BLE001 (gRPC raises a bare Exception when the client is gone)
                pass

        threading.Thread(target=note_requests, daemon=True).start()
        for response in script(stream):
            if response == "break":
                context.abort(grpc.StatusCode.UNAVAILABLE, "the script breaks the stream")
            yield response

    def stop(self) -> None:
        self._server.stop(grace=None).wait()


def header(revision: int, store: int = 7) -> Any:
    response = etcdrpc.RangeResponse()
    response.header.revision = revision
    response.header.cluster_id = store
    return response.header


def created(revision: int = 1, *, store: int = 7, **more: Any) -> Any:
    return etcdrpc.WatchResponse(header=header(revision, store), created=True, **more)


def progress(revision: int) -> Any:
    return etcdrpc.WatchResponse(header=header(revision))


def canceled(reason: str, **more: Any) -> Any:
    return etcdrpc.WatchResponse(header=header(1), created=True, canceled=True, cancel_reason=reason, **more)


def compacted(revision: int) -> Any:
    return etcdrpc.WatchResponse(header=header(revision), canceled=True, compact_revision=revision)


def written(*changes: tuple[str, int], number: int = 0) -> Any:
    """One response with these keys, written at these revisions, for the watch of this number."""
    response = etcdrpc.WatchResponse(header=header(max(revision for _, revision in changes)), watch_id=number)
    for key, revision in changes:
        event = response.events.add()
        event.kv.CopyFrom(stored(key, revision))
    return response


def stored(key: str, revision: int) -> Any:
    event = etcdrpc.WatchResponse().events.add()
    event.kv.key = key.encode()
    event.kv.create_revision = event.kv.mod_revision = revision
    return event.kv
