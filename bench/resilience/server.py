#!/usr/bin/env python3
"""A server of the benchmark of origins: answers 1 KiB, slowly or not at all, as it is told.

It is like a server with so many workers: each answers one request at a time, which takes it `--takes` milliseconds, and
what comes while all are busy waits its turn. So one that is slow is overrun where it gets as many requests as the others.

GET /count says how many requests it has had, those for /count not among them, and is answered at once. What is asked for
below /kept/ may be stored for a second and served stale for an hour; nothing else may be stored.

One thread, one epoll instance, no framework: some 20,000 requests a second of a core.
"""
import argparse, collections, heapq, itertools, select, socket, struct, sys, time

BODY = b'x' * 1024


def head(status, fields, body):
    return f'HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n'.encode() + body


ANSWER = head('200 OK', 'Cache-Control: no-store\r\n', BODY)
KEPT = head('200 OK', 'Cache-Control: max-age=1, stale-if-error=3600\r\n', BODY)
REFUSAL = head('503 Service Unavailable', 'Cache-Control: no-store\r\n', b'busy')
# The time that select's and epoll's own clocks may be late by is not to be added to what a request takes.
EARLY = 0.00005


class Server:
    def __init__(self, port, takes, workers, fails):
        self.takes, self.idle, self.fails = takes, workers, fails
        self.asked, self.serial = 0, itertools.count()
        self.waiting, self.busy, self.connections = collections.deque(), [], {}
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(('127.0.0.1', port))
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)

    def run(self):
        while True:
            # select, since epoll counts in milliseconds.
            pause = max(0, self.busy[0][0] - time.monotonic()) if self.busy else None
            select.select([self.epoll], [], [], pause)
            for fd, _ in self.epoll.poll(0):
                if fd == self.listener.fileno():
                    self.accept()
                elif fd in self.connections:
                    self.read(fd)
            now = time.monotonic() + EARLY
            while self.busy and self.busy[0][0] <= now:
                _, _, connection, answer = heapq.heappop(self.busy)
                self.idle += 1
                self.send(connection, answer)
                if self.waiting:
                    self.begin(*self.waiting.popleft())

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections[connection.fileno()] = (connection, bytearray())
            self.epoll.register(connection, select.EPOLLIN)

    def read(self, fd):
        connection, had = self.connections[fd]
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.close(connection)
            return
        had += data
        while (end := had.find(b'\r\n\r\n')) >= 0:
            # No request of the benchmark has a body.
            target = bytes(had[:end]).split(b' ', 2)[1]
            del had[:end + 4]
            self.request(connection, target)

    def request(self, connection, target):
        if target == b'/count':
            self.send(connection, head('200 OK', 'Cache-Control: no-store\r\n', str(self.asked).encode()))
            return
        self.asked += 1
        if self.fails == 'reset':
            # Closed without lingering, it is reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.close(connection)
            return
        answer = REFUSAL if self.fails else KEPT if b'/kept/' in target else ANSWER
        if self.idle:
            self.begin(connection, answer)
        else:
            self.waiting.append((connection, answer))

    def begin(self, connection, answer):
        self.idle -= 1
        heapq.heappush(self.busy, (time.monotonic() + self.takes, next(self.serial), connection, answer))

    def send(self, connection, answer):
        # Who has gone meanwhile gets no answer. What is sent is smaller than any socket's buffer.
        if connection.fileno() >= 0:
            try:
                connection.sendall(answer)
            except OSError:
                self.close(connection)

    def close(self, connection):
        if (fd := connection.fileno()) >= 0:
            self.epoll.unregister(fd)
            del self.connections[fd]
            connection.close()


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.partition('\n\n')[0])
    p.add_argument('--port', type=int, required=True)
    p.add_argument('--takes', type=float, default=2, help='milliseconds (%(default)s)')
    p.add_argument('--workers', type=int, default=4, help='(%(default)s)')
    p.add_argument('--fails', choices=['503', 'reset'], help='default: it does not')
    p.add_argument('--standby', action='store_true', help='listens only when it reads a line from its standard input')
    a = p.parse_args()
    if a.standby:
        sys.stdin.readline()
    Server(a.port, a.takes / 1e3, a.workers, a.fails).run()
