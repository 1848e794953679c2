# cython: autotestdict=False, auto_pickle=False
"""The proxy door's client side: requests framed anew, responses relayed as they come.

A request without a body, on a connection that is idle, costs one write and no coroutine; a response that arrives whole
costs two calls of `send`. Everything rarer (opening, queueing, uploads, slow clients, other servers than granian) is
written for the reader instead.

Time is counted in ticks of one coarse timer a pool: a deadline is a number that the ticker compares, so a request arms
no timer of its own. A timeout is late by at most one tick, never early.

Who owns what: the pool owns its connections; a connection owns the exchange that it serves until `Exchange._detach`;
nobody else keeps either. An exchange ends exactly once, in `Exchange._settle`.
"""

import asyncio
from collections import deque

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from gateway._native.http1 cimport (
    BODY_CHUNKED,
    BODY_CLOSE,
    BODY_LENGTH,
    CHUNK_FINISHED,
    CHUNK_SPAN,
    NAME_BYTES_MAX,
    NAME_INVALID,
    NAME_UNDERSCORE,
    Head,
    HeaderLine,
    NameEntry,
    NameTable,
    chunk_next,
    head_parse,
    head_scan,
    length_parse,
    name_fold,
    problem_of,
    target_is_clean,
    token_is_clean,
    value_is_clean,
)
from gateway._native.slice cimport Slice, slice_empty, slice_equal_lower, slice_of

cdef extern from "Python.h":
    bint PyCFunction_Check(object)
    PyObject* PyCFunction_GET_SELF(object)
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1
    PyObject* PyBytes_FromStringAndSize_owned "PyBytes_FromStringAndSize"(const char*, Py_ssize_t) except NULL

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_PEEK
    ssize_t socket_send "send"(int, const void*, size_t, int)
    ssize_t socket_recv "recv"(int, void*, size_t, int)


FAULT_KINDS = (
    "unreachable",      # no connection could be had
    "timeout",          # the upstream did not answer, or not go on, within response_timeout_s
    "protocol",         # the upstream's answer is no HTTP/1.1 response, or broke off
    "busy",             # no connection came free within queue_timeout_s, or too many requests wait
    "client_gone",      # nobody is there to answer
    "body_too_large",   # more than body_bytes_max
    "body_timeout",     # the client's body did not go on within body_timeout_s
    "bad_request",      # the request cannot be framed: an odd length, a control byte, a repeated Host
)


class UpstreamFault(Exception):
    """Why a request could not be relayed. `kind` is one of FAULT_KINDS; `started`: the response's start went out."""

    def __init__(self, str kind, str message="", *, bint started=False):
        super().__init__(message or kind)
        self.kind = kind
        self.started = started


# -- header names -----------------------------------------------------------------------------------------------------

cdef enum Act:
    ACT_PASS = 1            # known; passes, whatever a Connection header says of it
    ACT_DROP = 2            # between two hops only, or an identity header: never passes
    ACT_HOST = 3
    ACT_LENGTH = 4
    ACT_CODING = 5
    ACT_CONNECTION = 6
    ACT_EXPECT = 7
    ACT_FORWARDED_FOR = 8
    ACT_FORWARDED = 9       # RFC 7239
    ACT_FORWARDED_PROTO = 10
    ACT_FORWARDED_HOST = 11
    ACT_FORWARDED_PORT = 12
    ACT_TRUSTED = 13        # passes from a trusted peer only
    ACT_VIA = 14

# RFC 9110 §7.6.1; `proxy` is what CGI programs read as HTTP_PROXY.
cdef dict _HOP_BY_HOP = dict.fromkeys(
    (
        b"keep-alive", b"proxy", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-authentication-info", b"te", b"trailer", b"upgrade", b"http2-settings",
    ),
    ACT_DROP,
)

# RFC 9110 §7.6.1: "A sender MUST NOT send a connection option corresponding to a field intended for all recipients."
# A client that does so anyway wants to hide such a field from the app; these stay.
cdef tuple _END_TO_END = (
    b"accept", b"accept-charset", b"accept-encoding", b"accept-language", b"authorization", b"cache-control",
    b"content-disposition", b"content-encoding", b"content-language", b"content-location", b"content-range",
    b"content-type", b"cookie", b"date", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
    b"if-unmodified-since", b"origin", b"pragma", b"priority", b"range", b"referer", b"sec-fetch-dest",
    b"sec-fetch-mode", b"sec-fetch-site", b"sec-fetch-user", b"traceparent", b"tracestate", b"user-agent",
    b"x-csrf-token", b"x-request-id", b"x-requested-with",
)

cdef dict _REQUEST_ACTS = {
    **dict.fromkeys(_END_TO_END, ACT_PASS),
    **_HOP_BY_HOP,
    b"host": ACT_HOST,
    b"content-length": ACT_LENGTH,
    b"transfer-encoding": ACT_CODING,
    b"connection": ACT_CONNECTION,
    b"expect": ACT_EXPECT,
    b"forwarded": ACT_FORWARDED,
    b"x-forwarded-for": ACT_FORWARDED_FOR,
    b"x-forwarded-proto": ACT_FORWARDED_PROTO,
    b"x-forwarded-host": ACT_FORWARDED_HOST,
    b"x-forwarded-port": ACT_FORWARDED_PORT,
    b"x-real-ip": ACT_TRUSTED,
    b"x-client-ip": ACT_TRUSTED,
    b"true-client-ip": ACT_TRUSTED,
    b"x-rewrite-url": ACT_TRUSTED,
    b"x-url-scheme": ACT_TRUSTED,
    b"front-end-https": ACT_TRUSTED,
    b"via": ACT_VIA,
    **dict.fromkeys(
        (
            b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-key", b"sec-websocket-protocol",
            b"sec-websocket-version",
        ),
        ACT_DROP,  # of the client's own handshake with us
    ),
}

cdef NameTable _RESPONSE_TABLE = NameTable({
    **dict.fromkeys(
        _END_TO_END + (
            b"accept-ranges", b"access-control-allow-credentials", b"access-control-allow-headers",
            b"access-control-allow-methods", b"access-control-allow-origin", b"access-control-expose-headers",
            b"age", b"allow", b"alt-svc", b"content-security-policy", b"etag", b"expires", b"last-modified", b"link",
            b"location", b"referrer-policy", b"retry-after", b"server", b"server-timing", b"set-cookie",
            b"strict-transport-security", b"vary", b"via", b"www-authenticate", b"x-content-type-options",
            b"x-frame-options", b"x-powered-by",
        ),
        ACT_PASS,
    ),
    **_HOP_BY_HOP,
    b"content-length": ACT_LENGTH,
    b"transfer-encoding": ACT_CODING,
    b"connection": ACT_CONNECTION,
})

# RFC 9110 §9.2.2; only these may be sent a second time.
cdef frozenset _IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"))

# What X-Forwarded-Proto says of a connection to us; a WebSocket began as an HTTP request.
cdef dict _WEB_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

cdef object _START_TYPE = "http.response.start"
cdef object _BODY_TYPE = "http.response.body"


cdef inline Slice _slice(bytes data):
    return slice_of(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline bytes _bytes(Slice s):
    return PyBytes_FromStringAndSize(s.ptr, s.len)


cdef frozenset _named_options(list values):
    """The lower-case names that Connection headers list."""
    return frozenset(option.strip(b" \t").lower() for value in values for option in (<bytes>value).split(b","))


cdef bytes _lower(Slice name):
    return _bytes(name).lower()


# -- one exchange -----------------------------------------------------------------------------------------------------

@cython.freelist(64)
cdef class Exchange:

    def __cinit__(self):
        self._asyncio_future_blocking = False

    # The future: what asyncio's tasks and granian's scheduler ask of one.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.done_:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration

    def get_loop(self):
        return self.pool.loop

    def done(self):
        return self.done_

    def cancelled(self):
        return self.cancelled_

    def result(self):
        if not self.done_:
            raise asyncio.InvalidStateError("the exchange is not done")
        if self.cancelled_:
            raise asyncio.CancelledError
        if self.error is not None:
            raise self.error

    def exception(self):
        if not self.done_:
            raise asyncio.InvalidStateError("the exchange is not done")
        if self.cancelled_:
            raise asyncio.CancelledError
        return self.error

    def add_done_callback(self, callback, *, context=None):
        if self.done_:
            self.pool.loop.call_soon(callback, self, context=context)
            return
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append((callback, context))

    def remove_done_callback(self, callback):
        before = len(self.callbacks or ())
        self.callbacks = [pair for pair in self.callbacks or () if pair[0] != callback]
        return before - len(self.callbacks)

    def cancel(self, msg=None):
        """Stop relaying: the upstream's connection is closed, the awaiter gets CancelledError."""
        if self.done_:
            return False
        self.cancelled_ = True
        self._fail("client_gone", "the request was cancelled", False)
        return True

    cdef object _settle(self, object error, bint from_io):
        """End the exchange and wake who awaits it."""
        cdef list callbacks = self.callbacks
        if self.done_:
            return None
        self.done_ = True
        self.error = error
        self.callbacks = None
        if error is not None and not self.cancelled_:
            self.pool.faults += 1
        if self.task is not None:
            task, self.task = self.task, None
            if task is not _current_task(self.pool.loop):
                task.cancel()
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)
        if callbacks is None:
            return None
        for callback, context in callbacks:
            if from_io and context is not None:
                # A callback of the event loop itself runs this, and no task: what the loop would do in its next round
                # can be done at once (saves a round of the loop, about 1 µs).
                PyContext_Enter(context)
                try:
                    callback(self)
                except Exception as failure:
                    self.pool.loop.call_exception_handler({"message": "a callback failed", "exception": failure})
                finally:
                    PyContext_Exit(context)
            else:
                self.pool.loop.call_soon(callback, self, context=context)

    cdef object _detach(self):
        cdef UpstreamConnection connection = self.connection
        self.connection = None
        if connection is not None:
            connection.exchange = None
        return connection

    cdef object _fail(self, str kind, str message, bint from_io):
        """End with a fault. What the upstream still says is not read: its connection is closed."""
        cdef UpstreamConnection connection
        if self.done_:
            return None
        connection = self._detach()
        if connection is not None:
            connection._close()
        self._settle(UpstreamFault(kind, message, started=self.started), from_io)

    cdef object _finish(self, bint reusable, bint from_io):
        """The response is complete; give its connection back or close it."""
        cdef UpstreamConnection connection = self._detach()
        self.complete = True
        if reusable and self.sent and not connection.choked:
            connection.reused = True
            self.pool._release(connection)
        else:
            connection._close()
        if self.blocked is None and not self.queue and self.wake is None:
            self._settle(None, from_io)
        elif self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    # Towards the server.

    cdef int _emit(self, dict message, Py_ssize_t size, bint start) except -1:
        """Hand one message to the server, or queue it where the server is not ready."""
        cdef object awaitable
        if start:
            self.status = message["status"]
        if self.direct and self.blocked is None and not self.queue:
            awaitable = self.send(message)
            self.started = True
            if start:
                self.settled_type = type(awaitable)
            elif type(awaitable) is not self.settled_type:
                self.blocked = awaitable
                self._pause()
                awaitable.add_done_callback(self._unblocked)
            return 0
        self.started = True
        if self.queue is None:
            self.queue = deque()
        self.queue.append((message, size))
        self.queued_bytes += size
        if self.direct or self.queued_bytes > QUEUED_BYTES_HIGH:
            self._pause()
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)
        return 0

    cdef object _pause(self):
        cdef UpstreamConnection connection = self.connection
        self.waiting = WAIT_CLIENT_READS
        self.deadline = self.pool.ticks + self.pool.stall_ticks
        if connection is not None and not connection.paused and not connection.is_closing():
            connection.paused = True
            connection.transport.pause_reading()

    def _unblocked(self, awaitable):
        """The server took what it was offered; go on reading."""
        cdef dict message
        self.blocked = None
        if self.done_:
            return
        try:
            while self.queue and self.blocked is None:
                message, size = self.queue.popleft()
                self.queued_bytes -= size
                awaitable = self.send(message)
                if type(awaitable) is not self.settled_type:
                    self.blocked = awaitable
                    awaitable.add_done_callback(self._unblocked)
        except Exception as error:
            self._fail("client_gone", f"the server refuses the response: {type(error).__name__}", False)
            return
        if self.blocked is not None:
            self.deadline = self.pool.ticks + self.pool.stall_ticks
        elif self.complete:
            self._settle(None, False)
        else:
            self._go_on()

    def _go_on(self):
        """Wait for the upstream again after the client has taken everything."""
        self.waiting = WAIT_RESPONSE
        self.deadline = self.pool.ticks + self.pool.response_ticks
        if self.connection is not None:
            self.connection._resume()

    async def _relay(self):
        """The general path, for servers whose `send` must be awaited."""
        self.wake = self.pool.loop.create_future()
        try:
            self.pool._begin(self)
            while True:
                while self.queue:
                    message, size = self.queue.popleft()
                    try:
                        await self.send(message)
                    except OSError as error:
                        raise UpstreamFault("client_gone", type(error).__name__, started=self.started) from error
                    self.queued_bytes -= size
                if self.error is not None:
                    raise self.error
                if self.complete or self.done_:
                    return
                if self.connection is not None and self.connection.paused:
                    self._go_on()
                self.wake = self.pool.loop.create_future()
                await self.wake
        finally:
            if self.complete:
                self._settle(None, False)
            else:
                self._fail("client_gone", "the server stopped the request", False)

    # From the client.

    cdef object _start_task(self, object coroutine):
        self.task = self.pool.loop.create_task(coroutine)

    def _gone(self):
        self._fail("client_gone", "the client went away", False)

    async def _watch(self):
        """Notice that the client goes away while the upstream takes its time."""
        cdef bint over = False
        try:
            while not self.done_ and not self.complete:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    self._gone()
                    return
                if message.get("body"):
                    self._fail("bad_request", "a body came that the request did not announce", False)
                    return
                if not message.get("more_body", False):
                    if over:
                        return  # a server that repeats itself has nothing more to say
                    over = True
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail("client_gone", f"the server's receive failed: {type(error).__name__}", False)

    async def _upload(self):
        """Send the request's body as it comes, no faster than the upstream takes it."""
        cdef uint64_t total = 0
        cdef bytes data
        cdef bint more = True
        cdef UpstreamPool pool = self.pool
        try:
            if self.expects:
                if self.started:
                    return  # a final answer came at once: the body is not wanted
                self.proceed = pool.loop.create_future()
                self.proceed_tick = pool.ticks + pool.expect_ticks
                self.deadline = self.proceed_tick + pool.response_ticks
                await self.proceed
            while more and self.connection is not None:
                if self.writable is not None:
                    await self.writable
                    self.writable = None
                    continue
                if self.waiting == WAIT_RESPONSE:
                    self.waiting = WAIT_CLIENT_BODY
                    self.deadline = pool.ticks + pool.body_ticks
                message = await self.receive()
                if self.done_ or self.complete:
                    return
                if self.waiting == WAIT_CLIENT_BODY:
                    self.waiting = WAIT_RESPONSE
                    self.deadline = pool.ticks + pool.response_ticks
                if message["type"] == "http.disconnect":
                    self._gone()
                    return
                data = bytes(message.get("body") or b"")
                more = message.get("more_body", False)
                total += <uint64_t>PyBytes_GET_SIZE(data)
                if pool.body_bytes_max and total > pool.body_bytes_max:
                    self._fail("body_too_large", f"the body is longer than {pool.body_bytes_max} bytes", False)
                    return
                if not self.chunked:
                    if total > self.length or (not more and total < self.length):
                        # The upstream must never see a message of another length than its head says.
                        self._fail("bad_request", "the body is not as long as its content-length says", False)
                        return
                    more = total < self.length  # what would come now is not part of the message
                self._write_body(data, not more)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail("client_gone", f"the server's receive failed: {type(error).__name__}", False)

    cdef object _write_body(self, bytes data, bint last):
        cdef UpstreamConnection connection = self.connection
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if connection is None:
            return None
        if self.chunked:
            if size:
                data = b"%x\r\n%b\r\n" % (size, data)
            if last:
                data += b"0\r\n\r\n"
        if last:
            self.sent = True
            self.task = None
        if data and not connection.is_closing():
            if self.head_is_held:
                self.head_is_held = False
                connection._write_first(self, self.head + data)
            else:
                connection.transport.write(data)
            if connection.choked and not last:
                self.writable = self.pool.loop.create_future()

    # The clock.

    cdef object _check(self):
        """Called each tick: what has waited too long?"""
        cdef uint64_t now = self.pool.ticks
        if self.proceed is not None and not self.proceed.done() and now >= self.proceed_tick:
            self.proceed.set_result(None)  # RFC 9110 §10.1.1: not to wait for an indefinite period
        if now >= self.deadline:
            if self.waiting == WAIT_RESPONSE:
                self._fail("timeout", "the upstream did not answer in time", False)
            elif self.waiting == WAIT_CLIENT_BODY:
                self._fail("body_timeout", "the body did not go on in time", False)
            elif self.waiting == WAIT_CLIENT_READS:
                self._fail("client_gone", "the client does not take the response", False)
        elif self.task is None and self.sent and now >= self.born + 2:
            self._start_task(self._watch())


cdef object _current_task(object loop):
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None


# -- one connection ---------------------------------------------------------------------------------------------------

cdef class UpstreamConnection:

    def __cinit__(self, UpstreamPool pool not None):
        self.pool = pool
        self.descriptor = -1
        self.phase = READ_NOTHING
        memset(&self.scan, 0, sizeof(self.scan))

    def __dealloc__(self):
        free(self.held)

    # The protocol: what asyncio calls.

    def connection_made(self, transport):
        self.transport = transport
        self.is_closing = transport.is_closing
        if self.pool.tls is None:
            socket = transport.get_extra_info("socket")
            if socket is not None:
                self.descriptor = socket.fileno()

    def data_received(self, data):
        cdef Exchange exchange = self.exchange
        if exchange is None or self.phase == READ_NOTHING:
            self._close()  # nobody asked: whatever this is, it must not become somebody's answer
            return
        self.answered = True
        if exchange.waiting == WAIT_RESPONSE:
            exchange.deadline = self.pool.ticks + self.pool.response_ticks
        try:
            self._feed(exchange, data if type(data) is bytes else bytes(data))
        except Exception as error:
            exchange._fail("protocol", f"the server refuses the response: {type(error).__name__}", True)

    def eof_received(self):
        cdef Exchange exchange = self.exchange
        if exchange is None:
            self._close()
        elif self.phase == READ_CLOSE:
            self.phase = READ_NOTHING
            try:
                exchange._emit({"type": _BODY_TYPE, "body": b"", "more_body": False}, 0, False)
            except Exception as error:
                exchange._fail("protocol", f"the server refuses the response: {type(error).__name__}", True)
                return False
            exchange._finish(False, True)
        else:
            self._lost(exchange, "the upstream closed the connection", True)
        return False

    def connection_lost(self, error):
        cdef Exchange exchange = self.exchange
        if exchange is not None:
            self._lost(exchange, "the connection broke" if error is not None else "the connection was closed", True)
        self._close()

    def pause_writing(self):
        self.choked = True

    def resume_writing(self):
        cdef Exchange exchange = self.exchange
        self.choked = False
        if exchange is not None and exchange.writable is not None and not exchange.writable.done():
            exchange.deadline = self.pool.ticks + self.pool.response_ticks
            exchange.writable.set_result(None)

    # The rest.

    cdef object _close(self):
        """Stop using the connection. What its transport still holds is thrown away."""
        cdef Exchange exchange = self.exchange
        if self.dead:
            return None
        self.dead = True
        self.descriptor = -1
        self.phase = READ_NOTHING
        self.pool._forget(self)
        if exchange is not None:
            exchange.connection = None
            self.exchange = None
            if exchange.writable is not None and not exchange.writable.done():
                exchange.writable.set_result(None)
        if self.transport is not None:
            self.transport.abort()

    cdef object _lost(self, Exchange exchange, str problem, bint from_io):
        """The connection ended before the response did: once more on a fresh one where that is safe, else a fault."""
        cdef UpstreamPool pool = self.pool
        if (
            self.reused and not self.answered and exchange.idempotent and not exchange.has_body
            and not exchange.retried and not pool.closed
        ):
            # RFC 9112 §9.3.1: only idempotent methods, and only where the connection closed before a response began.
            exchange._detach()
            self._close()
            exchange.retried = True
            exchange.waiting = WAIT_CONNECTION
            exchange.deadline = pool.ticks + pool.connect_ticks
            pool.retries += 1
            pool.waiters.appendleft(exchange)
            pool._open_more()
            return None
        exchange._fail("protocol", problem, from_io)

    cdef bint _quiet(self) except -1:
        """True if the peer has neither closed nor said anything; asked where a request cannot be repeated."""
        cdef char byte
        cdef ssize_t got
        if self.descriptor < 0:
            return True
        got = socket_recv(self.descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT)
        return got < 0 and errno == EAGAIN

    cdef object _serve(self, Exchange exchange):
        """Send the exchange's head, and begin its body."""
        cdef UpstreamPool pool = self.pool
        self.exchange = exchange
        exchange.connection = self
        exchange.waiting = WAIT_RESPONSE
        exchange.deadline = pool.ticks + pool.response_ticks
        exchange.born = pool.ticks
        self.phase = READ_HEAD
        self.answered = False
        self.interim = 0
        if not exchange.has_body:
            exchange.sent = True
            self._write_first(exchange, exchange.head)
            return None
        # A short body mostly is there already; then head and body go out together. Where the length is unknown, or the
        # client waits for a sign (Expect), the upstream must see the head first.
        exchange.head_is_held = (
            not exchange.chunked and not exchange.expects and exchange.length <= HELD_HEAD_BODY_BYTES_MAX
        )
        if not exchange.head_is_held:
            self._write_first(exchange, exchange.head)
        if exchange.connection is self:
            exchange._start_task(exchange._upload())

    cdef object _write_first(self, Exchange exchange, bytes data):
        """Write a request's first bytes, past the transport where that is possible."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        cdef ssize_t written = 0
        if self.descriptor >= 0:
            # INVARIANT: the transport's own buffer is empty here (_release looks), so the order of bytes is kept. The
            # descriptor is open: transports close it in connection_lost only, and `is_closing` was asked before.
            written = socket_send(self.descriptor, PyBytes_AS_STRING(data), <size_t>size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if written < 0:
                if errno != EAGAIN:
                    self._lost(exchange, "the connection broke", False)
                    return None
                written = 0
        if written < size:
            self.transport.write(data[written:] if written else data)

    cdef object _resume(self):
        if self.paused and not self.dead and not self.is_closing():
            self.paused = False
            self.transport.resume_reading()

    cdef int _hold(self, const char* data, Py_ssize_t length) except -1:
        """Keep `length` bytes behind those that are held; `data` may lie in `held` itself when nothing is held."""
        cdef char* room
        cdef Py_ssize_t need = self.held_bytes + length
        if self.held_bytes == 0 and self.held != NULL and self.held <= data <= self.held + self.held_capacity:
            memmove(self.held, data, <size_t>length)
        else:
            if need > self.held_capacity:
                room = <char*>realloc(self.held, <size_t>need)
                if room == NULL:
                    raise MemoryError()
                self.held = room
                self.held_capacity = need
            memcpy(self.held + self.held_bytes, data, <size_t>length)
        self.held_bytes = need
        return 0

    cdef object _broken(self, Exchange exchange, int code):
        exchange._fail("protocol", problem_of(code), True)

    cdef object _feed(self, Exchange exchange, bytes data):
        """Take what the upstream sent, from wherever in the response it is."""
        cdef const char* at = PyBytes_AS_STRING(data)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(data)
        cdef Py_ssize_t size
        cdef Head* head = &self.pool.response
        cdef dict start
        cdef int code
        if self.phase != READ_HEAD:
            return self._body(exchange, None, data, at, length)
        if self.held_bytes:
            self._hold(at, length)
            at = self.held
            length = self.held_bytes
        while True:
            size = head_scan(at, length, &self.scan)
            if size < 0:
                return self._broken(exchange, <int>size)
            if size == 0:
                if at != self.held or self.held_bytes == 0:
                    self.held_bytes = 0
                    self._hold(at, length)
                return None
            memset(&self.scan, 0, sizeof(self.scan))
            code = head_parse(slice_of(at, size), exchange.to_head, head)
            if code < 0:
                return self._broken(exchange, code)
            if head.status >= 200:
                break
            # RFC 9110 §15.2: any number of interim responses may come; we never asked for 101.
            self.interim += 1
            if head.status == 101 or self.interim > INTERIM_RESPONSES_MAX:
                return exchange._fail("protocol", "the upstream sent an interim response that nobody asked for", True)
            if head.status == 100:
                if exchange.proceed is None:
                    exchange.expects = False    # it came before the upload's task ran, which need not wait any more
                elif not exchange.proceed.done():
                    exchange.proceed.set_result(None)
            at += size
            length -= size
            self.held_bytes = 0     # `at` may still point into it: _hold moves, nothing is freed
            if length == 0:
                return None
        at += size
        length -= size
        self.keep_alive = head.keep_alive
        exchange.proceed_tick = ~<uint64_t>0
        start = self.pool._start_message()
        if head.framing == BODY_LENGTH:
            self.phase = READ_LENGTH
            self.left = head.length
        elif head.framing == BODY_CHUNKED:
            self.phase = READ_CHUNKED
            memset(&self.chunk, 0, sizeof(self.chunk))
        elif head.framing == BODY_CLOSE:
            self.phase = READ_CLOSE
        else:
            self.phase = READ_LENGTH
            self.left = 0
        self._body(exchange, start, None, at, length)
        self.held_bytes = 0
        if self.held_capacity > 4096:
            free(self.held)
            self.held = NULL
            self.held_capacity = 0

    cdef object _body(self, Exchange exchange, dict start, bytes whole, const char* at, Py_ssize_t length):
        """Relay a piece of the body; `whole` holds exactly these bytes, or is None.

        `start`: the response's start, where this is the first piece. It goes out with it: a server may answer 500 when
        it is told of a start alone, and what is malformed at once is better a 502.
        """
        cdef bytes piece
        cdef Py_ssize_t size = length
        cdef Py_ssize_t position = 0
        cdef bint last = False
        cdef Slice span
        cdef PyObject* room
        cdef int code
        if self.phase == READ_LENGTH:
            if <uint64_t>size >= self.left:
                size = <Py_ssize_t>self.left
                last = True
            self.left -= <uint64_t>size
            position = size
            piece = whole if whole is not None and size == length else PyBytes_FromStringAndSize(at, size)
        elif self.phase == READ_CHUNKED:
            size = 0
            room = PyBytes_FromStringAndSize_owned(NULL, length)
            while True:
                code = chunk_next(&self.chunk, at, length, &position, &span)
                if code != CHUNK_SPAN:
                    break
                # INVARIANT: spans do not overlap and lie within the input, so they fit the room.
                memcpy(PyBytes_AS_STRING(<bytes>room) + size, span.ptr, <size_t>span.len)
                size += span.len
            _PyBytes_Resize(&room, size)
            piece = _owned_bytes(room)
            if code < 0:
                return self._broken(exchange, code)
            last = code == CHUNK_FINISHED
            if not last and not size and start is None:
                return None     # framing only
        else:
            piece = whole if whole is not None else PyBytes_FromStringAndSize(at, length)
            position = length
        if last:
            self.phase = READ_NOTHING
        if start is not None:
            exchange._emit(start, 0, True)
        exchange._emit({"type": _BODY_TYPE, "body": piece, "more_body": not last}, size, False)
        if last:
            # Bytes after the end belong to no request of ours: the connection is of no more use.
            exchange._finish(self.keep_alive and position == length, True)


cdef bytes _owned_bytes(PyObject* owned):
    """Give the reference that `owned` is to Cython's hands."""
    cdef bytes result = <bytes>owned
    _decref(owned)
    return result

cdef extern from "Python.h":
    void _decref "Py_DECREF"(PyObject*)


# -- one pool ---------------------------------------------------------------------------------------------------------

cdef uint64_t _ticks_of(double seconds, double tick_s) except? 0:
    """Whole ticks that last at least `seconds`; the first tick may come at once, so one more."""
    if seconds <= 0:
        raise ValueError("a timeout must be above zero")
    return <uint64_t>(seconds / tick_s + 0.999999) + 1


cdef class UpstreamPool:

    def __cinit__(
        self,
        str host not None,
        int port,
        *,
        object tls=None,
        str server_name=None,
        str unix_path=None,
        int connections_max=256,
        int queue_max=1024,
        int streams_max=1024,
        double connect_timeout_s=2.0,
        double response_timeout_s=30.0,
        double keepalive_s=55.0,
        double queue_timeout_s=1.0,
        double body_timeout_s=30.0,
        double stall_timeout_s=60.0,
        double expect_timeout_s=1.0,
        object body_bytes_max=0,
        bytes host_header=None,
        bytes via=b"",
        bint forwarded=True,
        double tick_s=0.25,
    ):
        if not 0 <= port <= 65535:
            raise ValueError("a port is within 0 to 65535")
        if connections_max < 1 or queue_max < 0 or streams_max < 0 or tick_s <= 0:
            raise ValueError("connections_max and tick_s must be above zero, queue_max and streams_max not below it")
        self.host = host
        self.port = port
        self.tls = tls
        self.server_name = server_name if server_name is not None else host
        self.unix_path = unix_path
        self.connections_max = connections_max
        self.queue_max = queue_max
        self.streams_max = streams_max
        self.connect_timeout_s = connect_timeout_s
        self.tick_s = tick_s
        self.response_ticks = _ticks_of(response_timeout_s, tick_s)
        self.keepalive_ticks = _ticks_of(keepalive_s, tick_s) - 1
        self.queue_ticks = _ticks_of(queue_timeout_s, tick_s)
        self.connect_ticks = _ticks_of(connect_timeout_s, tick_s) + 1
        self.body_ticks = _ticks_of(body_timeout_s, tick_s)
        self.stall_ticks = _ticks_of(stall_timeout_s, tick_s)
        self.expect_ticks = _ticks_of(expect_timeout_s, tick_s)
        self.body_bytes_max = body_bytes_max
        self.host_header = host_header
        self.own_host = (f"[{host}]" if ":" in host else host).encode("idna" if not host.isascii() else "ascii")
        if port != (443 if tls is not None else 80):
            self.own_host += b":%d" % port
        self.via = via
        self.forwarded = forwarded
        if not value_is_clean(PyBytes_AS_STRING(via), PyBytes_GET_SIZE(via)):
            raise ValueError("via has a control byte")
        if host_header is not None and not target_is_clean(PyBytes_AS_STRING(host_header), PyBytes_GET_SIZE(host_header)):
            raise ValueError("host_header is not of visible ASCII")
        self.connections = set()
        self.idle = []
        self.waiters = deque()
        self.opening = set()
        self.streams = set()
        self.table = NameTable(_REQUEST_ACTS)
        self.out_capacity = 2048
        self.out = <char*>malloc(<size_t>self.out_capacity)
        if self.out == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.out)

    def stats(self):
        """Return counts: connections by state, requests waiting, and totals since the start."""
        return {
            "open": len(self.connections),
            "idle": len(self.idle),
            "active": len(self.connections) - len(self.idle),
            "opening": len(self.opening),
            "waiting": len(self.waiters),
            "streams": len(self.streams),
            "requests": self.requests,
            "connects": self.connects,
            "reuses": self.reuses,
            "retries": self.retries,
            "faults": self.faults,
        }

    # -- requests -----------------------------------------------------------------------------------------------------

    def forward(self, dict scope not None, receive, send, bytes target not None, extra_headers=(), drop=None, bint trusted=False):
        """Relay one ASGI http request and its response. Return an awaitable that raises UpstreamFault."""
        return self.forward_c(scope, receive, send, _slice(target), tuple(extra_headers), drop, trusted)

    cdef object forward_c(
        self, dict scope, object receive, object send, Slice target, tuple extra_headers, object drop, bint trusted
    ):
        cdef Exchange exchange = Exchange.__new__(Exchange)
        exchange.pool = self
        exchange.receive = receive
        exchange.send = send
        self.requests += 1
        if self.loop is None:
            self._bind()
        try:
            self._build(exchange, scope, target, extra_headers, drop, trusted)
        except UpstreamFault as fault:
            exchange._settle(fault, False)
            return exchange
        if not self._is_direct(send):
            return exchange._relay()
        exchange.direct = True
        self._begin(exchange)
        return exchange

    cdef object _bind(self):
        self.loop = asyncio.get_running_loop()

    def request_head(self, dict scope not None, bytes target not None, extra_headers=(), drop=None, bint trusted=False):
        """Return the head that `forward` would send for a request without body. Raises UpstreamFault."""
        cdef Exchange exchange = Exchange.__new__(Exchange)
        self._build(exchange, scope, _slice(target), tuple(extra_headers), drop, trusted)
        if exchange.has_body:
            raise UpstreamFault("bad_request", "a body was announced where none may be")
        return exchange.head

    async def open_stream(self, Py_ssize_t limit=65536):
        """Open a connection for something else than HTTP requests; return (StreamReader, StreamWriter)."""
        if self.loop is None:
            self._bind()
        if self.closed:
            raise UpstreamFault("unreachable", "the pool is closed")
        if len(self.streams) >= self.streams_max:
            raise UpstreamFault("busy", f"more than {self.streams_max} streams to the upstream")
        place = object()
        self.streams.add(place)
        arguments = {} if self.tls is None else {"ssl": self.tls, "server_hostname": self.server_name}
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                if self.unix_path is not None:
                    reader, writer = await asyncio.open_unix_connection(self.unix_path, limit=limit, **arguments)
                else:
                    reader, writer = await asyncio.open_connection(self.host, self.port, limit=limit, **arguments)
        except (OSError, ValueError) as error:
            raise UpstreamFault("unreachable", f"no connection to the upstream: {type(error).__name__}") from error
        finally:
            self.streams.discard(place)
        self.streams.add(writer)
        return reader, writer

    def close_stream(self, writer):
        """Close what `open_stream` gave; what is not written yet is thrown away."""
        self.streams.discard(writer)
        writer.transport.abort()

    cdef bint _is_direct(self, object send) except -1:
        """True for the `send` of granian's HTTP protocol, which completes at once unless its channel is full."""
        cdef PyObject* owner
        if not PyCFunction_Check(send):
            return False
        owner = PyCFunction_GET_SELF(send)
        if owner == NULL:
            return False
        if self.direct_type is not None and type(<object>owner) is self.direct_type:
            return True
        if type(<object>owner).__module__ == "granian._granian" and type(<object>owner).__name__ == "ASGIHTTPProtocol":
            self.direct_type = type(<object>owner)
            return True
        return False

    cdef int _put(self, const char* data, Py_ssize_t length) except -1:
        """Append to the request that is being built; the one place where its size is looked at."""
        cdef Py_ssize_t need = self.out_bytes + length
        cdef char* room
        if need > REQUEST_HEAD_BYTES_MAX:
            raise UpstreamFault("bad_request", f"the head is longer than {REQUEST_HEAD_BYTES_MAX} bytes")
        if need > self.out_capacity:
            room = <char*>realloc(self.out, <size_t>(2 * need))
            if room == NULL:
                raise MemoryError()
            self.out = room
            self.out_capacity = 2 * need
        memcpy(self.out + self.out_bytes, data, <size_t>length)
        self.out_bytes = need
        return 0

    cdef int _put_header(self, const char* name, Py_ssize_t name_len, const char* value, Py_ssize_t value_len) except -1:
        if not token_is_clean(name, name_len):
            raise UpstreamFault("bad_request", "a header name is malformed")
        if not value_is_clean(value, value_len):
            raise UpstreamFault("bad_request", "a header value has a control byte")
        self._put(name, name_len)
        self._put(b": ", 2)
        self._put(value, value_len)
        return self._put(b"\r\n", 2)

    cdef object _build(self, Exchange exchange, dict scope, Slice target, tuple extra, object drop, bint trusted):
        """Write the request's head. Raises UpstreamFault for what cannot be framed in one way only."""
        cdef str method = scope["method"] if scope["type"] != "websocket" else "GET"
        cdef Py_ssize_t method_len
        cdef const char* method_text = PyUnicode_AsUTF8AndSize(method, &method_len)
        cdef object headers = scope["headers"]
        cdef object item
        cdef object name_object
        cdef object value_object
        cdef Slice name
        cdef Slice value
        cdef Slice host = slice_empty()
        cdef Py_ssize_t host_at
        cdef char folded[NAME_BYTES_MAX]
        cdef uint32_t hashed
        cdef int kind
        cdef int act
        cdef int given = 0          # bit ACT_…: a trusted peer gave this forwarding header
        cdef NameEntry* entry
        cdef bint has_host = False
        cdef bint has_length = False
        cdef bint coded = False
        cdef list options = None    # values of Connection that name more than the usual
        cdef list chain = None      # X-Forwarded-For of a trusted peer
        cdef list elements = None   # Forwarded of a trusted peer
        cdef list others = None     # with `options`: (name, value) whose passing is not decided yet
        if drop is not self.table_drop:
            self.table = NameTable({**_REQUEST_ACTS, **dict.fromkeys(drop or (), ACT_DROP)})
            self.table_drop = drop
        if not token_is_clean(method_text, method_len) or method == "CONNECT":
            raise UpstreamFault("bad_request", "the method cannot be relayed")
        if not target_is_clean(target.ptr, target.len) or (
            target.ptr[0] != c'/' and not (target.len == 1 and target.ptr[0] == c'*' and method == "OPTIONS")
        ):
            raise UpstreamFault("bad_request", "the target cannot be relayed")
        exchange.to_head = method == "HEAD"
        exchange.idempotent = method in _IDEMPOTENT
        self.out_bytes = 0
        self._put(method_text, method_len)
        self._put(b" ", 1)
        self._put(target.ptr, target.len)
        self._put(b" HTTP/1.1\r\n", 11)
        if type(headers) is not list:
            headers = list(headers)
        # First the Host (RFC 9110 §7.2: "generate Host as the first field"), and whether Connection names something odd.
        for item in <list>headers:
            name_object, value_object = item
            if type(name_object) is not bytes or type(value_object) is not bytes:
                raise UpstreamFault("bad_request", "a header is not of bytes")
            name = _slice(<bytes>name_object)
            if name.len == 4 and slice_equal_lower(name, slice_of(b"host", 4)):
                if has_host:
                    raise UpstreamFault("bad_request", "there is more than one host")
                has_host = True
                host = _slice(<bytes>value_object)
            elif name.len == 10 and slice_equal_lower(name, slice_of(b"connection", 10)):
                value = _slice(<bytes>value_object)
                if not (
                    slice_equal_lower(value, slice_of(b"keep-alive", 10)) or slice_equal_lower(value, slice_of(b"close", 5))
                ):
                    if options is None:
                        options = []
                    options.append(value_object)
        if host.len and not target_is_clean(host.ptr, host.len):
            raise UpstreamFault("bad_request", "the host is malformed")
        if self.host_header is not None:
            self._put_header(b"host", 4, PyBytes_AS_STRING(self.host_header), PyBytes_GET_SIZE(self.host_header))
        elif host.len:
            self._put_header(b"host", 4, host.ptr, host.len)
        else:
            self._put_header(b"host", 4, PyBytes_AS_STRING(self.own_host), PyBytes_GET_SIZE(self.own_host))
        named = _named_options(options) if options is not None else None
        for item in <list>headers:
            name_object, value_object = item
            name = _slice(<bytes>name_object)
            value = _slice(<bytes>value_object)
            kind = name_fold(name, folded, &hashed)
            if kind == NAME_INVALID:
                raise UpstreamFault("bad_request", "a header name is malformed")
            entry = self.table.find(folded, name.len, hashed)
            if entry != NULL:
                act = entry.action
                if kind == NAME_UNDERSCORE and act != ACT_PASS:
                    continue    # a CGI-like app would read `content_length` as the real thing
            elif name.len > 8 and folded[0] == c'x' and (
                memcmp(folded, b"x-forwar", 8) == 0 or memcmp(folded, b"x-origin", 8) == 0
            ):
                act = ACT_TRUSTED
            elif name.len > 6 and memcmp(folded, b"proxy-", 6) == 0:
                continue
            else:
                act = 0
            if extra and _is_extra(folded, name.len, extra):
                continue
            if act == 0:
                if named is not None and (<bytes>name_object).lower() in named:
                    continue
            elif act == ACT_PASS:
                pass
            elif act == ACT_DROP or act == ACT_HOST or act == ACT_CONNECTION:
                continue
            elif act == ACT_LENGTH:
                if has_length or length_parse(value, &exchange.length) < 0:
                    raise UpstreamFault("bad_request", "the content-length is malformed or repeated")
                has_length = True
                continue
            elif act == ACT_CODING:
                if coded or not slice_equal_lower(value, slice_of(b"chunked", 7)):
                    raise UpstreamFault("bad_request", "the transfer-encoding is not `chunked`")
                coded = True
                continue
            elif act == ACT_EXPECT:
                exchange.expects = slice_equal_lower(value, slice_of(b"100-continue", 12))
                continue
            elif act == ACT_VIA:
                pass
            else:
                if not trusted:
                    continue
                if act == ACT_FORWARDED_FOR:
                    chain = _append(chain, value_object)
                    continue
                if act == ACT_FORWARDED and self.forwarded:
                    elements = _append(elements, value_object)
                    continue
                given |= 1 << act
            # Token and value are looked at in name_fold and here: nothing unchecked is written.
            if not value_is_clean(value.ptr, value.len):
                raise UpstreamFault("bad_request", "a header value has a control byte")
            self._put(name.ptr, name.len)
            self._put(b": ", 2)
            self._put(value.ptr, value.len)
            self._put(b"\r\n", 2)
        if has_length and coded:
            raise UpstreamFault("bad_request", "there are both a content-length and a transfer-encoding")
        self._put_forwarded(scope, host, chain, elements, given)
        if PyBytes_GET_SIZE(self.via):
            self._put_header(b"via", 3, PyBytes_AS_STRING(self.via), PyBytes_GET_SIZE(self.via))
        for item in extra:
            name_object, value_object = item
            name = _slice(<bytes?>name_object)
            value = _slice(<bytes?>value_object)
            self._put_header(name.ptr, name.len, value.ptr, value.len)
        if has_length:
            if self.body_bytes_max and exchange.length > self.body_bytes_max:
                raise UpstreamFault("body_too_large", f"the body is longer than {self.body_bytes_max} bytes")
            item = b"content-length: %d\r\n" % exchange.length
            self._put(PyBytes_AS_STRING(<bytes>item), PyBytes_GET_SIZE(<bytes>item))
            exchange.has_body = exchange.length > 0
        elif coded or (
            # HTTP/2 announces no length where it has none; these methods mean a body.
            method in ("POST", "PUT", "PATCH") and not (<str>scope["http_version"]).startswith("1")
        ):
            self._put(b"transfer-encoding: chunked\r\n", 28)
            exchange.has_body = True
            exchange.chunked = True
        if not exchange.has_body:
            exchange.expects = False
        elif exchange.expects:
            self._put(b"expect: 100-continue\r\n", 22)
        self._put(b"\r\n", 2)
        exchange.head = PyBytes_FromStringAndSize(self.out, self.out_bytes)

    cdef object _put_forwarded(self, dict scope, Slice host, list chain, list elements, int given):
        """X-Forwarded-*, and Forwarded (RFC 7239): the trusted peer's own, then what we saw ourselves."""
        cdef object client = scope.get("client")
        cdef object server = scope.get("server")
        cdef str scheme = _WEB_SCHEMES.get(scope.get("scheme"), "http")
        cdef bytes address = str(client[0]).encode() if client else b"unknown"
        cdef bytes scheme_text = scheme.encode()
        cdef bytes port
        cdef bytes node
        cdef bytes value
        value = address if chain is None else b"%b, %b" % (b", ".join(chain), address)
        self._put_header(b"x-forwarded-for", 15, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        if not given & (1 << ACT_FORWARDED_PROTO):
            self._put_header(
                b"x-forwarded-proto", 17, PyBytes_AS_STRING(scheme_text), PyBytes_GET_SIZE(scheme_text)
            )
        if host.len and not given & (1 << ACT_FORWARDED_HOST):
            self._put_header(b"x-forwarded-host", 16, host.ptr, host.len)
        if server and server[1] is not None and not given & (1 << ACT_FORWARDED_PORT):
            port = str(server[1]).encode()
            self._put_header(b"x-forwarded-port", 16, PyBytes_AS_STRING(port), PyBytes_GET_SIZE(port))
        if self.forwarded:
            node = b'"[%b]"' % address if b":" in address else address
            value = b"for=%b;proto=%b" % (node, scheme_text)
            if host.len and memchr(host.ptr, 34, <size_t>host.len) == NULL and memchr(host.ptr, 92, <size_t>host.len) == NULL:
                value = b'%b;host="%b"' % (value, _bytes(host))
            if elements is not None:
                value = b"%b, %b" % (b", ".join(elements), value)
            self._put_header(b"forwarded", 9, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))

    cdef object _begin(self, Exchange exchange):
        """Give the exchange a connection, now or when there is one."""
        cdef UpstreamConnection connection
        if self.closed:
            return exchange._fail("unreachable", "the pool is closed", False)
        if self.ticker is None:
            self.ticker = self.loop.call_later(self.tick_s, self._on_tick)
        while self.idle:
            connection = self.idle.pop()
            if connection.is_closing() or ((exchange.has_body or not exchange.idempotent) and not connection._quiet()):
                connection._close()
                continue
            self.reuses += 1
            connection._serve(exchange)
            return None
        if len(self.waiters) >= self.queue_max + len(self.opening):
            return exchange._fail("busy", "too many requests wait for a connection", False)
        if len(self.connections) + len(self.opening) >= self.connections_max:
            exchange.waiting = WAIT_PLACE
            exchange.deadline = self.ticks + self.queue_ticks
        else:
            exchange.waiting = WAIT_CONNECTION
            exchange.deadline = self.ticks + self.connect_ticks
        self.waiters.append(exchange)
        self._open_more()

    # -- connections --------------------------------------------------------------------------------------------------

    cdef Exchange _next_waiter(self):
        cdef Exchange exchange
        while self.waiters:
            exchange = self.waiters.popleft()
            if not exchange.done_:
                return exchange
        return None

    cdef object _open_more(self):
        while (
            len(self.opening) < len(self.waiters)
            and len(self.connections) + len(self.opening) < self.connections_max
            and not self.closed
        ):
            task = self.loop.create_task(self._open())
            self.opening.add(task)

    async def _open(self):
        """Open one connection and serve the first request that waits."""
        cdef UpstreamConnection connection = UpstreamConnection(self)
        cdef Exchange exchange
        task = asyncio.current_task()
        arguments = {} if self.tls is None else {"ssl": self.tls, "server_hostname": self.server_name}
        problem = None
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                if self.unix_path is not None:
                    await self.loop.create_unix_connection(lambda: connection, self.unix_path, **arguments)
                else:
                    await self.loop.create_connection(lambda: connection, self.host, self.port, **arguments)
        except (OSError, ValueError) as error:
            problem = f"no connection to the upstream: {type(error).__name__}"
        finally:
            self.opening.discard(task)
        if problem is None and connection.is_closing():
            problem = "the upstream closed the connection at once"
        if problem is not None:
            # Somebody is told, or an upstream that hangs up at once would be dialled for ever.
            exchange = self._next_waiter()
            if exchange is not None:
                exchange._fail("unreachable", problem, False)
            self._open_more()
            return
        self.connects += 1
        self.connections.add(connection)
        self._release(connection)

    cdef object _release(self, UpstreamConnection connection):
        """A connection is free: for the next who waits, or for the shelf."""
        cdef Exchange exchange
        connection._resume()
        connection.phase = READ_NOTHING
        if self.closed or connection.is_closing():
            connection._close()
            return None
        if connection.descriptor >= 0 and connection.transport.get_write_buffer_size():
            connection._close()     # its peer has not taken the last request, whatever it answered
            return None
        if self.waiters:
            exchange = self._next_waiter()
            if exchange is not None:
                connection._serve(exchange)
                return None
        connection.reused = True
        connection.idle_deadline = self.ticks + self.keepalive_ticks
        self.idle.append(connection)

    cdef object _forget(self, UpstreamConnection connection):
        self.connections.discard(connection)
        if connection.exchange is None and connection in self.idle:
            self.idle.remove(connection)
        if self.waiters:
            self._open_more()
        if self._drained is not None and not self.connections and not self._drained.done():
            self._drained.set_result(None)

    cdef object _start_message(self):
        """The response's start, from `self.response`, without what belongs to the upstream's connection."""
        cdef Head* head = &self.response
        cdef list headers = []
        cdef list options = None
        cdef object name
        cdef HeaderLine* line
        cdef NameEntry* entry
        cdef char folded[NAME_BYTES_MAX]
        cdef uint32_t hashed
        cdef int i
        cdef int kind
        cdef int act
        for i in range(head.count):
            line = &head.line[i]
            kind = name_fold(line.name, folded, &hashed)
            entry = NULL if kind == NAME_UNDERSCORE else _RESPONSE_TABLE.find(folded, line.name.len, hashed)
            if entry == NULL:
                name = _lower(line.name)
            else:
                act = entry.action
                if act == ACT_DROP or act == ACT_CODING or (act == ACT_LENGTH and head.status == 204):
                    continue    # RFC 9110 §8.6: no content-length in a 204
                if act == ACT_CONNECTION:
                    if options is None:
                        options = []
                    options.append(_bytes(line.value))
                    continue
                name = <object>entry.shared
            headers.append((name, PyBytes_FromStringAndSize(line.value.ptr, line.value.len)))
        if options is not None:
            headers = _without_options(headers, _named_options(options))
        if self.draining:
            headers.append((b"connection", b"close"))
        return {"type": _START_TYPE, "status": head.status, "headers": headers}

    # -- the clock ----------------------------------------------------------------------------------------------------

    def _on_tick(self):
        self.ticker = None
        self.tick()
        if self.connections or self.waiters:
            self.ticker = self.loop.call_later(self.tick_s, self._on_tick)

    def tick(self):
        """Let one tick pass: idle connections age, deadlines come nearer. The pool's own timer calls this."""
        cdef UpstreamConnection connection
        cdef Exchange exchange
        self.ticks += 1
        while self.idle:
            connection = self.idle[0]
            if connection.idle_deadline > self.ticks:
                break
            connection._close()
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange._check()
        for exchange in [waiter for waiter in self.waiters if (<Exchange>waiter).deadline <= self.ticks]:
            self.waiters.remove(exchange)
            if exchange.waiting == WAIT_PLACE:
                exchange._fail("busy", "no connection came free in time", False)
            else:
                exchange._fail("unreachable", "no connection to the upstream in time", False)

    async def aclose(self, double grace_s=0.0):
        """Close the pool: idle connections at once, others when their response is done or `grace_s` is over."""
        cdef UpstreamConnection connection
        cdef Exchange exchange
        self.closed = True
        if self.ticker is not None and not grace_s:
            self.ticker.cancel()
            self.ticker = None
        for connection in list(self.idle):
            connection._close()
        exchange = self._next_waiter()
        while exchange is not None:
            exchange._fail("unreachable", "the pool is closed", False)
            exchange = self._next_waiter()
        if self.connections and grace_s > 0:
            self._drained = self.loop.create_future()
            try:
                async with asyncio.timeout(grace_s):
                    await self._drained
            except TimeoutError:
                pass  # what still runs is cut below, and its awaiter told
        for connection in list(self.connections):
            if connection.exchange is not None:
                connection.exchange._fail("unreachable", "the pool is closed", False)
            connection._close()
        for writer in list(self.streams):
            if isinstance(writer, asyncio.StreamWriter):
                self.close_stream(writer)
        for task in list(self.opening):
            task.cancel()
        if self.opening:
            await asyncio.wait(list(self.opening))
        if self.ticker is not None:
            self.ticker.cancel()
            self.ticker = None


cdef list _append(list values, object value):
    if values is None:
        values = []
    if len(values) >= FORWARDED_LINES_MAX:
        raise UpstreamFault("bad_request", f"more than {FORWARDED_LINES_MAX} lines of one forwarding header")
    if not value_is_clean(PyBytes_AS_STRING(<bytes>value), PyBytes_GET_SIZE(<bytes>value)):
        raise UpstreamFault("bad_request", "a header value has a control byte")
    values.append(value)
    return values


cdef bint _is_extra(const char* folded, Py_ssize_t length, tuple extra) except -1:
    """True if a header of ours has this folded name; a client's namesake must not pass."""
    cdef object item
    cdef bytes name
    cdef char ours[NAME_BYTES_MAX]
    cdef uint32_t hashed
    for item in extra:
        name = (<tuple?>item)[0]
        if PyBytes_GET_SIZE(name) != length:
            continue
        if name_fold(_slice(name), ours, &hashed) == NAME_INVALID:
            raise UpstreamFault("bad_request", "a header name is malformed")
        if memcmp(ours, folded, <size_t>(length if length < NAME_BYTES_MAX else NAME_BYTES_MAX)) == 0:
            return True
    return False


cdef list _without_options(list headers, frozenset named):
    """Leave out the headers that a response's Connection names; what concerns the client itself stays."""
    cdef char folded[NAME_BYTES_MAX]
    cdef uint32_t hashed
    cdef NameEntry* entry
    cdef list kept = []
    for name, value in headers:
        if name in named:
            name_fold(_slice(<bytes>name), folded, &hashed)
            if _RESPONSE_TABLE.find(folded, PyBytes_GET_SIZE(<bytes>name), hashed) == NULL:
                continue
        kept.append((name, value))
    return kept
