"""Writes expansions.txt: seed expansions computed without any of this repository's code.

Needs Python 3 and the package `cryptography`. Run it in this folder: python3 generate.py > expansions.txt
"""
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CASES = [
    ("zero seed", bytes(32), "mask", b""),
    ("counting seed", bytes(range(32)), "mask", b"context"),
    ("counting seed, other purpose", bytes(range(32)), "bits", b"context"),
    ("counting seed, other context", bytes(range(32)), "mask", b"Context"),
    ("mask context length", bytes([0xFF] * 32), "mask", bytes(range(84))),
    ("long context", bytes([7] * 32), "rotation", bytes(1000)),
]
LENGTH = 5 * 4096 + 12

print("# Expansions of crypto/prg, made by generate.py. 20492 bytes each: head, tail and SHA-256 of the whole.")
for name, seed, purpose, context in CASES:
    info = purpose.encode() + b"\x00" + context
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=b"ruche/secagg/v1/prg", info=info).derive(seed)
    enc = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    stream = enc.update(bytes(LENGTH))
    print()
    print("name:", name)
    print("seed:", seed.hex())
    print("purpose:", purpose)
    print("context:", context.hex())
    print("head:", stream[:48].hex())
    print("tail:", stream[-28:].hex())
    print("sha256:", hashlib.sha256(stream).hexdigest())
