#!/usr/bin/env python3
"""Works out the expected values of token_test.cpp and keys_test.cpp without any of the node's code: secp256k1 by its formulas,
PBKDF2 from the standard library. Run it to see them."""
import hashlib

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
     0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8)


def add(a, b):
    if a is None:
        return b
    if b is None:
        return a
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    slope = (3 * a[0] * a[0] * pow(2 * a[1], -1, P) if a == b else (b[1] - a[1]) * pow(b[0] - a[0], -1, P)) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def public_key(secret):
    point, doubled = None, G
    while secret:
        if secret & 1:
            point = add(point, doubled)
        doubled = add(doubled, doubled)
        secret >>= 1
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def wallet(name, token):
    secret = hashlib.sha256(token.encode()).digest()
    key = public_key(int.from_bytes(secret, "big"))
    h = hashlib.sha256(key).hexdigest()
    print(name, "\n  token ", token, "\n  digest", hashlib.sha256(token.encode()).hexdigest(), "\n  public", key.hex(),
          "\n  address 0x" + h[:40], "\n  wallet id", h[:16], "\n  node id", h[:32])
    for instance in (1, 65535):
        node = hashlib.sha256(secret + b"ns-node" + instance.to_bytes(4, "big")).digest()
        print("  node id of instance", instance, hashlib.sha256(public_key(int.from_bytes(node, "big"))).hexdigest()[:32])


words = "abandon " * 11 + "about"
wallet("words", hashlib.pbkdf2_hmac("sha512", words.encode(), b"mnemonic", 2048).hex()[:64])
wallet("word", "correct-horse")
inner = hashlib.sha256(b"payload").digest()
print("signing digest", hashlib.sha256(b"tag-v1\n" + inner).hexdigest())
