"""gRPC spoken by hand over TLS: what a peer could send that no library would. Standard library only."""

import os
import socket
import ssl
import struct
import subprocess

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NAMES = {8: (":status", "200"), 12: (":status", "400"), 13: (":status", "404"), 14: (":status", "500")}


def certificate(directory, name):
    """A key and a self-made certificate of somebody nobody knows; the path of both in one file."""
    path = os.path.join(directory, name + ".pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path,
                    "-out", path + ".crt", "-subj", "/CN=" + name, "-days", "1"], check=True, capture_output=True)
    with open(path, "ab") as out, open(path + ".crt", "rb") as crt:
        out.write(crt.read())
    return path


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def message(payload, length=None):
    """A gRPC message; `length`: what its prefix says instead of the truth."""
    return b"\0" + struct.pack(">I", len(payload) if length is None else length) + payload


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number, payload, length=None):
    """A length-delimited protobuf field; `length`: what it says instead of the truth."""
    return varint(number << 3 | 2) + varint(len(payload) if length is None else length) + payload


def literal(name, value):
    """A header that no table remembers."""
    name, value = name.encode(), value.encode()
    return b"\0" + integer(len(name), 7) + name + integer(len(value), 7) + value


def integer(value, bits):
    most = (1 << bits) - 1
    if value < most:
        return bytes([value])
    return bytes([most]) + varint(value - most)


def read_integer(data, at, bits):
    most = (1 << bits) - 1
    value = data[at] & most
    at += 1
    shift = 0
    while value >= most:
        byte = data[at]
        at += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, at


def headers_of(block):
    """The header list of a server that was told to keep no table."""
    found, at = {}, 0

    def string():
        nonlocal at
        if block[at] & 0x80:
            raise AssertionError("a Huffman string")
        length, at = read_integer(block, at, 7)
        at += length
        return block[at - length:at].decode()
    while at < len(block):
        byte = block[at]
        if byte & 0x80:
            index, at = read_integer(block, at, 7)
            name, value = NAMES.get(index, (f"#{index}", ""))
        elif byte & 0xE0 == 0x20:
            _, at = read_integer(block, at, 5)
            continue
        else:
            index, at = read_integer(block, at, 6 if byte & 0x40 else 4)
            name = NAMES.get(index, (f"#{index}", ""))[0] if index else string()
            value = string()
        found[name] = value
    return found


class Wire:
    """One connection. Streams are numbered from 1 on in steps of two."""

    def __init__(self, port, pem, timeout=60):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(pem)
        self.socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=timeout))
        self.next_stream = 1
        self.blocks = {}  # headers that have come, by stream
        self.ended = set()
        # No header table; windows that nothing has to be asked for.
        self.send(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HIHI", 1, 0, 4, 2**30)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def open(self, path, end=False, more_headers=(), **metadata):
        """HEADERS of a call; its stream."""
        stream = self.next_stream
        self.next_stream += 2
        fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "node", "content-type": "application/grpc",
                  "te": "trailers", "grpc-timeout": "30S", "ns-protocol": "1", "ns-network": "main"}
        fields.update({name.replace("_", "-"): value for name, value in metadata.items()})
        block = b"".join(literal(name, value) for name, value in fields.items() if value is not None)
        block += b"".join(literal(name, value) for name, value in more_headers)
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block))
        return stream

    def data(self, stream, payload, end=True):
        for at in range(0, max(1, len(payload)), 16384):
            last = at + 16384 >= len(payload)
            self.send(frame(DATA, END_STREAM if end and last else 0, stream, payload[at:at + 16384]))

    def read_frame(self):
        head = self.exactly(9)
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        payload = self.exactly(length)
        if kind == SETTINGS and not flags & ACK:
            self.send(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == HEADERS:
            self.blocks.setdefault(stream, {}).update(headers_of(payload))
        if kind == RST_STREAM or (kind in (HEADERS, DATA) and flags & END_STREAM):
            self.ended.add(stream)
        if kind == GOAWAY:
            raise ConnectionResetError(payload[8:].decode(errors="replace"))
        return kind, flags, stream, payload

    def exactly(self, length):
        data = b""
        while len(data) < length:
            part = self.socket.recv(length - len(data))
            if not part:
                raise ConnectionResetError("closed")
            data += part
        return data

    def end_of(self, stream):
        """The gRPC status of a call, and all its headers."""
        while stream not in self.ended:
            self.read_frame()
        found = self.blocks.get(stream, {})
        return int(found.get("grpc-status", -1)), found

    def call(self, path, payload=b"", **metadata):
        """A whole call as it should be made."""
        stream = self.open(path, **metadata)
        self.data(stream, message(payload))
        return self.end_of(stream)
