"""A client of the benchmark of origins: asks at a steady rate over kept connections, and writes down what becomes of each
request. wrk knows neither when a request failed nor which one."""
import collections, errno, heapq, itertools, select, socket, time

# A request that has no answer by then has failed.
PATIENCE = 5.0

Seen = collections.namedtuple('Seen', 'target sent ended status')


class Client:
    """`connections` that ask in turn, `rate` requests a second in all, as long as answers come in time."""

    def __init__(self, port, connections, rate, targets):
        self.address, self.pause, self.targets = ('127.0.0.1', port), connections / rate, itertools.cycle(targets)
        self.epoll, self.by_fd, self.serial, self.seen = select.epoll(), {}, itertools.count(), []
        self.due = [(i / rate, next(self.serial), Connection(self)) for i in range(connections)]

    def run(self, seconds, events=()):
        """Asks for so long, and meanwhile calls each event (seconds from the start, function) when its time has come.
        All requests, in the order of their ends."""
        start = time.monotonic()
        self.due = [(start + at, serial, connection) for at, serial, connection in self.due]
        heapq.heapify(self.due)
        events = collections.deque(sorted((start + at, serial, call) for serial, (at, call) in enumerate(events)))
        end, in_flight = start + seconds, set()
        while True:
            now = time.monotonic()
            while events and events[0][0] <= now:
                events.popleft()[2]()
            while now < end and self.due and self.due[0][0] <= now:
                at, _, connection = heapq.heappop(self.due)
                connection.ask(next(self.targets), now, max(at + self.pause, now))
                in_flight.add(connection)
            for connection in [c for c in in_flight if now > c.sent + PATIENCE]:
                connection.failed('no answer')
            in_flight = {c for c in in_flight if c.target}
            if now >= end and not in_flight and not events:
                break
            moments = [self.due[0][0]] if self.due and now < end else []
            moments += [events[0][0]] if events else []
            pause = max(0, min(moments, default=now + 0.05) - now)
            select.select([self.epoll], [], [], min(pause, 0.05))
            for fd, _ in self.epoll.poll(0):
                if connection := self.by_fd.get(fd):
                    connection.read()
        for connection in list(self.by_fd.values()):
            connection.close()
        return self.seen


class Connection:
    def __init__(self, client):
        self.client, self.socket, self.buffer = client, None, bytearray()
        self.target, self.sent, self.next = None, 0.0, 0.0

    def ask(self, target, now, then):
        self.target, self.sent, self.next = target, now, then
        request = f'GET {target} HTTP/1.1\r\nHost: bench.test\r\n\r\n'.encode()
        # A kept connection that has been closed meanwhile was no request's fault.
        for _ in range(2):
            try:
                if self.socket is None:
                    self.open()
                self.socket.sendall(request)
                return
            except OSError as e:
                self.close()
                why = errno.errorcode.get(e.errno, str(e))
        self.failed(why)

    def open(self):
        self.socket = socket.create_connection(self.client.address, 2)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.by_fd[self.socket.fileno()] = self
        self.client.epoll.register(self.socket, select.EPOLLIN)

    def read(self):
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b''
        self.buffer += data
        if not data:
            self.close()
            if self.target:
                self.failed('closed')
            return
        end = self.buffer.find(b'\r\n\r\n')
        if end < 0 or not self.target:
            return
        head = bytes(self.buffer[:end]).lower()
        length = head.find(b'content-length:')
        if length < 0:
            self.close()
            self.failed('no length')
            return
        body = int(head[length + 15:].split(b'\r\n', 1)[0])
        if len(self.buffer) >= end + 4 + body:
            status = int(head.split(b' ', 2)[1])
            self.buffer.clear()
            if b'connection: close' in head:
                self.close()
            self.done(status)

    def failed(self, why):
        self.close()
        self.done(why)

    def done(self, status):
        client = self.client
        client.seen.append(Seen(self.target, self.sent, time.monotonic(), status))
        self.target = None
        heapq.heappush(client.due, (self.next, next(client.serial), self))

    def close(self):
        if self.socket is not None:
            self.client.by_fd.pop(self.socket.fileno(), None)
            self.socket.close()
            self.socket = None
        self.buffer.clear()


def is_bad(seen):
    """A request that has not been served: broken, or answered with 5xx."""
    return not isinstance(seen.status, int) or seen.status >= 500
