"""A worker that echoes its argument, and now and then ends, hangs up, fails, asks for SQL, or sends what is no answer.

It imports nothing of ours, since it is started often.
"""

import os
import random
import signal
import socket
import struct
import threading

RESULT, ANSWER, FAILURE, SQL = 2, 3, 4, 5
HEAD = struct.Struct("<QB")
# A call's function and rows stand before its columns.
BEFORE = 12


def read(connection, size):
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def receive(connection):
    size, kind = HEAD.unpack(read(connection, HEAD.size))
    return kind, read(connection, size)


def send(connection, kind, content):
    connection.sendall(HEAD.pack(len(content), kind) + content)


def answer(connection, content):
    chance = random.random()
    if chance < 0.003:
        os._exit(3)
    elif chance < 0.006:
        os.kill(os.getpid(), signal.SIGKILL)
    elif chance < 0.009:
        raise EOFError
    elif chance < 0.012:
        send(connection, ANSWER, b"no column")
    elif chance < 0.1:
        send(connection, FAILURE, b"refused")
    else:
        if chance < 0.2:
            send(connection, SQL, b"LV3")
            assert receive(connection)[0] == RESULT
        send(connection, ANSWER, content[BEFORE:])


def serve(connection):
    try:
        while True:
            answer(connection, receive(connection)[1])
    except (EOFError, OSError):
        connection.close()


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=3)
    while True:
        text, files, _, _ = socket.recv_fds(control, 1, 1)
        if not text:
            os._exit(0)
        if text == b"x":
            control.send(b"x")
        for file in files:
            threading.Thread(target=serve, args=[socket.socket(fileno=file)], daemon=True).start()


if __name__ == "__main__":
    main()
