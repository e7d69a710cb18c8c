"""Writes composite.txt: member keys and signatures computed without any of this repository's code.

Needs Python 3 and the package `cryptography` (48 or later, for ML-DSA). The ML-DSA half is randomised, so every run
writes other signatures; each must verify. Run it in this folder: python3 generate.py > composite.txt
"""
import hashlib

from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

print("# Member keys and signatures made by generate.py: Ed25519 and ML-DSA-65 halves of another implementation.")
for n, (stmt, body) in enumerate([("roundconfig", b"a round"), ("result", b""), ("charter", bytes(range(200)))]):
    ed_seed = hashlib.sha256(b"ed25519 %d" % n).digest()
    ml_seed = hashlib.sha256(b"ml-dsa-65 %d" % n).digest()
    ed = ed25519.Ed25519PrivateKey.from_private_bytes(ed_seed)
    ml = mldsa.MLDSA65PrivateKey.from_seed_bytes(ml_seed)
    prefix = b"ruche/secagg/v1/" + stmt.encode()
    message = prefix + b"\x00" + hashlib.sha256(body).digest()
    print()
    print("name:", stmt)
    print("seeds:", (ed_seed + ml_seed).hex())
    print("public:", (ed.public_key().public_bytes_raw() + ml.public_key().public_bytes_raw()).hex())
    print("stmt:", stmt)
    print("body:", body.hex())
    print("ed25519:", ed.sign(message).hex())
    print("mldsa65:", ml.sign(message, prefix).hex())
