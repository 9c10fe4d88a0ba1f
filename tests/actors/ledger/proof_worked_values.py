#!/usr/bin/env python3
"""Recomputes the constants of merkle_test.cpp and work_proof_test.cpp from the words of spec/economics.md alone."""

import hashlib


def sha(data):
    return hashlib.sha256(data).digest()


def root(ids):
    if not ids:
        return sha(b"empty")
    level = [sha(b"\x00" + i) for i in sorted(ids)]
    while len(level) > 1:
        level = [sha(b"\x01" + level[i] + level[i + 1]) if i + 1 < len(level) else level[i]
                 for i in range(0, len(level), 2)]
    return level[0]


def proof():
    fields = [("chain_id", "11" * 32), ("node_id", "ab" * 16), ("wallet", "0x" + "cd" * 20), ("timestamp_us", 1768435230000000),
              ("nonce", "0f" * 16), ("epoch_id", 29473920), ("uptime_ms", 60000), ("label_tokens", 8192), ("steps", 4),
              ("step_begin", 100), ("step_end", 104), ("data_samples", 0), ("receipts_root", sha(b"empty").hex()),
              ("receipt_count", 0), ("layer_begin", 0), ("layer_end", 6), ("has_embedding", 1), ("has_lm_head", 1),
              ("is_async", 0), ("contribution_age_s", 0), ("model_hash_start", "22" * 32), ("model_hash_end", "22" * 32),
              ("gradient_commitment", "33" * 32), ("data_hash", "44" * 32), ("gradient_norm_e6", 812345), ("loss_e6", 5123456),
              ("batch_size", 8), ("seq_len", 256), ("architecture_id", "00112233445566aa")]
    return ("neuroshard-proof-v2\n" + "".join(f"{k}={v}\n" for k, v in fields)).encode()


if __name__ == "__main__":
    for count in (0, 1, 2, 3, 5, 8):
        print(count, root([sha(bytes([n])) for n in range(count)]).hex())
    print("proof", sha(proof()).hex())
