"""HTTP/1.1 client connections for the proxy door: one pool per upstream and event loop.

The front door calls `UpstreamPool.forward_c`; what it gives is awaited by the server, or by whoever turns faults into
answers. Everything here runs on the event loop's thread.
"""

from libc.stdint cimport uint64_t

from gateway._native.http1 cimport ChunkState, Head, HeadScan, NameTable
from gateway._native.slice cimport Slice

cdef enum:
    REQUEST_HEAD_BYTES_MAX = 262144     # what we send before a body
    FORWARDED_LINES_MAX = 16            # X-Forwarded-For or Forwarded lines of one request
    INTERIM_RESPONSES_MAX = 16          # 1xx before one final response
    HELD_HEAD_BODY_BYTES_MAX = 65536    # a body of this length or less goes out with its head
    QUEUED_BYTES_HIGH = 65536           # response bytes that wait for a slow client; then the upstream is not read

cdef enum ReadPhase:
    READ_HEAD = 0
    READ_LENGTH
    READ_CHUNKED
    READ_CLOSE
    READ_NOTHING            # no response is due

cdef enum WaitingFor:
    WAIT_PLACE = 0          # a connection that another request uses
    WAIT_CONNECTION         # a connection that is being opened
    WAIT_RESPONSE           # the upstream's head, or the next piece of its body
    WAIT_CLIENT_BODY        # the next piece of the request's body
    WAIT_CLIENT_READS       # the client, who does not take what we have for it

cdef class UpstreamPool
cdef class UpstreamConnection

cdef class Exchange:
    """One request and its response. An awaitable that behaves like an asyncio future."""
    cdef UpstreamPool pool
    cdef UpstreamConnection connection  # or None: not yet, not any more
    cdef object receive
    cdef object send
    cdef bytes head                     # the request's head as it goes out; kept for the queue and for one retry
    # the request
    cdef bint to_head                   # a HEAD request: the response has no body
    cdef bint idempotent                # RFC 9110 §9.2.2
    cdef bint has_body
    cdef bint chunked                   # body of unknown length
    cdef bint expects                   # Expect: 100-continue went out
    cdef bint head_is_held              # the head waits for the first piece of a short body
    cdef bint sent                      # head and body are with the transport, whole
    cdef bint retried
    cdef uint64_t length                # of the body, where it is known
    cdef object proceed                 # future of an upload that waits for 100 (Continue), or None
    cdef uint64_t proceed_tick
    cdef object writable                # future of an upload that waits for the transport, or None
    cdef object task                    # upload or watch of the client, or None
    # the response
    cdef bint direct                    # the server's `send` completes at once
    cdef readonly int status            # of the response; 0 until it started
    cdef bint started                   # the response's start was handed to the server
    cdef bint complete                  # and its end
    cdef object blocked                 # the server's awaitable of a `send` that did not complete at once, or None
    cdef type settled_type              # of awaitables that are complete already
    cdef object queue                   # deque of messages the server has not taken, or None
    cdef Py_ssize_t queued_bytes
    cdef object wake                    # future of the general path's coroutine, or None
    # the clock, in ticks of the pool
    cdef WaitingFor waiting
    cdef uint64_t deadline
    cdef uint64_t born
    # the future
    cdef public bint _asyncio_future_blocking
    cdef bint done_
    cdef bint cancelled_
    cdef object error
    cdef list callbacks                 # of (callable, context), or None
    cdef int _emit(self, dict message, Py_ssize_t size, bint start) except -1
    cdef object _pause(self)
    cdef object _finish(self, bint reusable, bint from_io)
    cdef object _fail(self, str kind, str message, bint from_io)
    cdef object _detach(self)
    cdef object _settle(self, object error, bint from_io)
    cdef object _check(self)
    cdef object _start_task(self, object coroutine)
    cdef object _write_body(self, bytes data, bint last)

cdef class UpstreamConnection:
    """One connection; an asyncio protocol. Owned by its pool."""
    cdef UpstreamPool pool
    cdef Exchange exchange              # or None: idle
    cdef object transport
    cdef object is_closing              # the transport's
    cdef int descriptor                 # to write a head without the transport, or -1 (TLS)
    cdef bint dead
    cdef bint reused                    # has served a request before
    cdef bint answered                  # bytes of the current response came
    cdef bint paused                    # we do not read
    cdef bint choked                    # the transport wants no more to write
    cdef bint keep_alive
    cdef int interim
    cdef ReadPhase phase
    cdef uint64_t left                  # of a READ_LENGTH
    cdef uint64_t idle_deadline
    cdef HeadScan scan
    cdef ChunkState chunk
    cdef char* held                     # owned: a head that is not whole yet
    cdef Py_ssize_t held_bytes
    cdef Py_ssize_t held_capacity
    cdef object _serve(self, Exchange exchange)
    cdef object _write_first(self, Exchange exchange, bytes data)
    cdef object _lost(self, Exchange exchange, str problem, bint from_io)
    cdef object _feed(self, Exchange exchange, bytes data)
    cdef int _hold(self, const char* data, Py_ssize_t length) except -1
    cdef object _body(self, Exchange exchange, dict start, bytes whole, const char* at, Py_ssize_t length)
    cdef object _broken(self, Exchange exchange, int code)
    cdef object _close(self)
    cdef object _resume(self)
    cdef bint _quiet(self) except -1

cdef class UpstreamPool:
    """The connections to one upstream. One event loop a pool."""
    cdef readonly str host
    cdef readonly int port
    cdef readonly int connections_max
    cdef readonly int queue_max
    cdef readonly int streams_max
    cdef public bint draining           # tell clients to close their connections
    cdef object tls
    cdef str server_name
    cdef str unix_path
    cdef bytes host_header              # or None: the client's Host is kept
    cdef bytes own_host                 # host:port, where a client sent no Host
    cdef bytes via
    cdef bint forwarded
    cdef double connect_timeout_s
    cdef double tick_s
    cdef uint64_t response_ticks, keepalive_ticks, queue_ticks, connect_ticks, body_ticks, stall_ticks, expect_ticks
    cdef uint64_t body_bytes_max
    cdef object loop
    cdef object ticker                  # the timer's handle, or None
    cdef uint64_t ticks
    cdef set connections
    cdef list idle                      # newest last
    cdef object waiters                 # deque of Exchange
    cdef set opening                    # tasks
    cdef set streams                    # writers, and places of those that are being opened
    cdef bint closed
    cdef object _drained                # future of aclose, or None
    cdef NameTable table
    cdef object table_drop              # what `table` was made for
    cdef type direct_type               # of the server object whose `send` completes at once
    cdef Head response                  # scratch of the connection that is parsing
    cdef char* out                      # owned: scratch of the request that is being built
    cdef Py_ssize_t out_bytes
    cdef Py_ssize_t out_capacity
    cdef readonly uint64_t requests, connects, reuses, retries, faults

    cdef object forward_c(self, dict scope, object receive, object send, Slice target, tuple extra_headers, object drop, bint trusted)
    """Relay one ASGI http request; give an awaitable. `target` is borrowed for the call.

    `extra_headers`: (name, value) pairs of bytes, added after the client's own headers; no header of the client with
    one of these names, or with a name in `drop` (frozenset of bytes), in any case and with `_` for `-`, goes upstream.
    `trusted`: the peer is a proxy whose forwarding headers count. The awaitable raises UpstreamFault.
    """

    cdef object _bind(self)
    cdef bint _is_direct(self, object send) except -1
    cdef int _put(self, const char* data, Py_ssize_t length) except -1
    cdef int _put_header(self, const char* name, Py_ssize_t name_len, const char* value, Py_ssize_t value_len) except -1
    cdef object _build(self, Exchange exchange, dict scope, Slice target, tuple extra, object drop, bint trusted)
    cdef object _put_forwarded(self, dict scope, Slice host, list chain, list elements, int given)
    cdef object _begin(self, Exchange exchange)
    cdef object _release(self, UpstreamConnection connection)
    cdef object _forget(self, UpstreamConnection connection)
    cdef object _open_more(self)
    cdef Exchange _next_waiter(self)
    cdef object _start_message(self)
