"""The load worker's loop: one epoll set, one timer, any number of connections, and never a blocking call.

The kernel's stamp comes with every piece that is read. Answers are neither parsed nor looked at until they are over.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

from redline.clock import now_ns
from redline.load.directed import run_of
from redline.load.frames import (
    End,
    Kind,
    Outgoing,
    Phase,
    PhaseDone,
    Stamp,
    StreamHead,
    Target,
    Tick,
    pack_json,
    pack_stream,
)
from redline.load.health import Health
from redline.load.idle import IDLE_REUSE_NS, Idle, lead_ns
from redline.load.lag import plant_stalls
from redline.load.linger import Linger
from redline.load.manners import Manners, Pieces
from redline.load.outbox import Outbox
from redline.load.phase import PhaseRun
from redline.load.receive import best
from redline.load.reception import Reception
from redline.load.stamps import StampClock
from redline.load.timer import Agenda
from redline.load.tls import Tls
from redline.load.wire import (
    Connection,
    Framing,
    State,
    failed_to_connect,
    meaning,
    open_socket,
)

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_RECEIVING = State.RECEIVING  # an enum's members cost a search each time
_ENTRUSTED = 1 << 32  # from here on, it is the poller that tells
_HOUSEKEEPING_NS = 100_000_000
_FROZEN_NS = 1_000_000_000
_RETRY_IDLE_NS = 500_000_000

NOBODY = -1
"""Index of a connection that was opened before there was a request for it."""


class LoadLoop:
    """`control` is the socket to redline; `on_control` is called when it is readable and may add bodies or phases."""

    def __init__(self, target: Target, outbox: Outbox, control: socket.socket, on_control: Callable[[], None]) -> None:
        self.target = target
        self.outbox = outbox
        self.bodies: deque[Outgoing] = deque()
        self.active = 0
        self.tick = Tick()
        self._finished: deque[tuple[StreamHead, str, Pieces]] = deque()
        self._control = control
        self._control_mask = _IN
        self._on_control = on_control
        self._phase: PhaseRun | None = None
        self._epoll = select.epoll()
        self._poller, self.interpreted = best(self._epoll, compiled=target.compiled)
        self.agenda = Agenda()
        self._manners = Manners(self.agenda, self._listen, self.finish)
        self._conns: dict[int, Connection] = {}
        self._opening = 0
        self._linger = Linger(target)
        self._idle = Idle(self._drop, lambda: self._open(-1, NOBODY, b"", 0))
        self._tls = ssl.create_default_context() if target.tls_name else None
        self._clock = StampClock(target.timestamps)
        self._reception = Reception(self._clock, self._linger, self._poller, self._manners.slows, self)
        self._health = Health(self.tick, self._clock, outbox, self.agenda, self._poller.held)
        self._epoll.register(control.fileno(), _IN)
        self._epoll.register(self.agenda.timer.fd, _IN)
        self.agenda.at(now_ns() + _HOUSEKEEPING_NS, self._housekeeping, now_ns() + _HOUSEKEEPING_NS)
        plant_stalls(self.agenda, target)

    def run(self) -> None:
        """Until the parent is gone (ConnectionResetError or BrokenPipeError)."""
        poller, conns, finished, linger, reception = (
            self._poller, self._conns, self._finished, self._linger, self._reception,
        )  # fmt: skip
        control, all_read = self._control.fileno(), True
        while True:
            self.agenda.run_due()
            if all_read and linger.ns and self.active and not finished and not self._opening:
                self.agenda.rest(linger.ns)
                self.agenda.run_due()  # what is due leaves before what came meanwhile is read
            events = poller.wait(forever=not finished)
            linger.reads += poller.found
            all_read = poller.found < poller.batch
            for fd, mask in events:
                conn = conns.get(fd)
                if conn is not None:
                    if mask >= _ENTRUSTED:
                        reception.told(conn, mask)
                    elif conn.state is _RECEIVING and mask & _IN:
                        reception.read(conn)
                    else:
                        self._other(conn, mask)
                elif fd == control:
                    if mask & _IN:
                        self._on_control()
                    self.outbox.flush()
            if finished:
                # packing and shipping take longer than the next send: they wait until nobody else does
                self._ship(4 if all_read else 1)
            self._watch_outbox()

    def _ship(self, most: int) -> None:
        """Hand finished requests to the parent, in the order in which they ended."""
        while self._finished and most:
            head, error, pieces = self._finished.popleft()
            self.outbox.put(pack_stream(head, error, *pieces))
            most -= 1

    def close(self) -> None:
        """Give every descriptor back, except the control socket."""
        for conn in list(self._conns.values()):
            self._drop(conn)
        for thing in (self._poller, self.agenda.timer, self._clock, self.outbox):
            thing.close()

    def _watch_outbox(self) -> None:
        mask = _IN | _OUT if self.outbox.waiting else _IN
        if mask != self._control_mask:
            self._control_mask = mask
            self._epoll.modify(self._control.fileno(), mask)

    def _housekeeping(self, due_ns: int) -> None:
        now = now_ns()
        self._reception.reread()
        self.tick.awaits_acks = self._linger.adapt(self._conns.values(), now - due_ns + _HOUSEKEEPING_NS)
        if now - due_ns < _FROZEN_NS:  # a loop that was frozen has bytes to read before it may call anybody silent
            self._sweep(now)
        self.outbox.put(pack_json(Kind.TICK, self._health.look(self.active, self._conns.values())))
        self.agenda.at(now + _HOUSEKEEPING_NS, self._housekeeping, now + _HOUSEKEEPING_NS)

    def _sweep(self, now: int) -> None:
        for conn in list(self._conns.values()):
            if conn.state is State.IDLE:
                if now - conn.idle_since_ns > IDLE_REUSE_NS:
                    self._drop(conn)
            elif (end := conn.overdue(now, self.target, self._poller.drain)) is not None:
                self._poller.drain(conn)
                endless = conn.size > self.target.answer_bytes_max
                self.finish(conn, end, f"{conn.size >> 20} MB and no end to it" if endless else "")

    def start_phase(self, phase: Phase) -> None:
        self._health.start_over()
        if phase.preconnect:
            missing = self._idle.open_up_to(phase.clients)
            phase.start_ns = phase.start_ns or now_ns() + lead_ns(missing)
        self._phase = run_of(phase, self)
        self._phase.start()

    def add_bodies(self, bodies: list[Outgoing]) -> None:
        self.bodies.extend(bodies)
        if self._phase is not None:
            self._phase.bodies_came()

    def cancel(self) -> None:
        if self._phase is not None:
            self._phase.stop("cancelled")

    def cut(self) -> None:
        for conn in list(self._conns.values()):
            if conn.state is not State.IDLE:
                self.finish(conn, End.CANCELLED)

    def phase_over(self, done: PhaseDone) -> None:
        self._phase = None
        self.bodies.clear()
        self._manners.clear()
        self._ship(len(self._finished))
        self._health.look(self.active, self._conns.values())
        self.outbox.put(pack_json(Kind.PHASE_DONE, done))

    def begin(self, client: int, intended_ns: int) -> None:
        body = self.bodies.popleft()
        self.active += 1
        self.tick.sent += 1
        now = now_ns()
        conn = self._idle.take(now) if self._manners.reuses(body) else None
        if conn is None:
            self._open(client, body.number, body.request, intended_ns)
            return
        conn.reuse(client, now)
        conn.take(body.number, body.request, intended_ns, now)
        self._send(conn)

    def _open(self, client: int, index: int, request: bytes, intended_ns: int, retried: int = 0) -> None:
        now = now_ns()
        try:
            sock = self._manners.prepare(open_socket(self.target), index)
        except OSError as error:
            if index == NOBODY:
                return
            head = StreamHead(index, intended_ns, now, 0, 0, now, failed_to_connect(error.errno), Stamp.KERNEL, retried)
            self._over(head, meaning(error.errno), ([], [], [], []), client, now, good=False)
            return
        conn = Connection(sock, client)
        conn.connect_ns, conn.retried = now, retried
        conn.take(index, request, intended_ns, now)
        if self._tls is not None:
            conn.tls = Tls(self._tls, self.target.tls_name)
        self._conns[conn.fd] = conn
        self._opening += 1
        self._listen(conn, _IN | _OUT)
        code = sock.connect_ex(self.target.address)
        if code == errno.EINPROGRESS and index != NOBODY:
            code = sock.connect_ex(self.target.address)  # through loopback the connection is there by now
        if code == 0 and index != NOBODY:  # those opened in advance open one another, and would do so ever deeper
            self._connected(conn)
        elif code not in (errno.EINPROGRESS, errno.EALREADY):
            self.finish(conn, failed_to_connect(code), meaning(code))

    def _listen(self, conn: Connection, mask: int) -> None:
        if conn.mask == mask:
            return
        (self._epoll.modify if conn.mask else self._epoll.register)(conn.fd, mask)
        conn.mask = mask

    def _other(self, conn: Connection, mask: int) -> None:
        """Whatever is not simply bytes of an answer. Errors and hang-ups come this way too; recvmsg says which."""
        state = conn.state
        if state is State.CONNECTING:
            self._connected(conn)
        elif state is State.HANDSHAKE:
            self._handshake(conn)
        elif state is State.SENDING:
            if mask & _OUT:
                self._send(conn)
            if mask & _IN and conn.state in (State.SENDING, State.RECEIVING):
                self._reception.read(conn)  # an answer may come before all of the request is gone
        elif state is _RECEIVING:
            self._reception.read(conn)
        elif state is State.IDLE and not conn.stays_idle():
            self._drop(conn)  # closed by the server, or bytes that nobody asked for

    def _connected(self, conn: Connection) -> None:
        code = conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.finish(conn, End.CONNECT, meaning(code))
        elif conn.tls is not None:
            conn.state = State.HANDSHAKE
            self._handshake(conn)
        else:
            self._established(conn)

    def _established(self, conn: Connection) -> None:
        self._opening -= 1
        conn.connected_ns = now_ns()
        conn.port = conn.sock.getsockname()[1]
        if conn.index != NOBODY:
            self._send(conn)
            return
        self._listen(conn, _IN)
        self._idle.connected(conn)

    def _handshake(self, conn: Connection) -> None:
        try:
            done = conn.shake_hands(readable=conn.mask == _IN)
        except BlockingIOError:
            return
        except OSError as error:  # ssl.SSLError is one
            self.finish(conn, End.CONNECT, f"TLS handshake: {error.strerror or error}")
            return
        self._listen(conn, _IN)
        if done:
            self._established(conn)

    def _send(self, conn: Connection) -> None:
        conn.state = State.SENDING
        conn.sent_ns = now_ns()  # before the call: on loopback the server may run, and answer, inside of it
        try:
            gone = conn.push()
        except OSError:
            self._listen(conn, _IN)
            self._reception.read(conn)  # the server may have said why it wants no more of this request
            return
        if gone:
            conn.state = State.RECEIVING
            self._manners.sent(conn)
        self._listen(conn, _IN if gone else _IN | _OUT)

    def broken(self, conn: Connection, error: OSError) -> None:
        """The connection is no good any more."""
        if conn.data:
            self.finish(conn, End.RESET, meaning(error.errno) if error.errno else str(error))
            return
        if conn.reused and conn.idle_gap_ns > _RETRY_IDLE_NS:
            # an idle connection that the server gave up at the moment when it was used again: nobody's failure
            self.tick.retried += 1
            self._drop(conn)
            self._open(conn.client, conn.index, conn.whole_request, conn.intended_ns, conn.retried + 1)
            return
        text = error.strerror if not error.errno else f"{meaning(error.errno)} before it answered"
        self.finish(conn, End.CONNECT, text or str(error))

    def finish(self, conn: Connection, end: End, error: str = "") -> None:
        """Hand over what came, and go on with the next request."""
        now = now_ns()
        self._poller.drain(conn)
        self._poller.release(conn)
        if conn.index == NOBODY:  # opened in advance, and it came to nothing; whoever needs one opens its own
            self._idle.open_no_more()
            self._drop(conn)
            return
        whole = end is End.COMPLETE or (end is End.CLOSED and conn.framing is Framing.CLOSE)
        head, pieces = conn.head(end, conn.stamps[-1] if whole else now), (conn.data, conn.stamps, conn.seen, conn.wire)
        self._health.finished(conn)
        if conn.tls is None:
            conn.received += conn.size
        conn.forget()
        if self._manners.keeps(conn) and end is End.COMPLETE and conn.keep_alive and conn.state is State.RECEIVING:
            self._idle.put(conn, now)
        else:
            self._drop(conn)
        good = end is End.ABANDONED or (whole and 200 <= conn.status < 300)
        self._over(head, error, pieces, conn.client, conn.begun_ns, good=good)

    def _over(self, head: StreamHead, error: str, pieces: Pieces, client: int, begun_ns: int, *, good: bool) -> None:
        """The next request goes out at once; this one goes to the parent when there is time."""
        self.active -= 1
        self._health.over(head.end, good=good)
        self._finished.append((head, error, pieces))
        phase = self._phase
        if phase is not None:
            phase.ended(client, head.end, good, begun_ns, head.ended_ns)
            phase.check()

    def _drop(self, conn: Connection) -> None:
        if conn.state is not State.DEAD:
            self._opening -= conn.connected_ns == 0
            conn.state = State.DEAD
            del self._conns[conn.fd]
            self._poller.forget(conn)
            conn.sock.close()
