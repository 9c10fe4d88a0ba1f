#include "actors/ledger/work_proof.hpp"

#include "tests/actors/ledger/record_fixture.hpp"

#include <cstdlib>
#include <random>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

/// The proof of proof_worked_values.py.
work_proof worked_proof() {
  work_proof proof;
  proof.chain_id.fill(0x11);
  for (int i = 0; i < 16; ++i)
    proof.node_id += "ab", proof.nonce += "0f";
  proof.wallet = "0x";
  for (int i = 0; i < 20; ++i)
    proof.wallet += "cd";
  proof.timestamp_us = 1'768'435'230'000'000;
  proof.epoch_id = 29'473'920;
  proof.uptime_ms = 60'000;
  proof.label_tokens = 8'192;
  proof.steps = 4;
  proof.step_begin = 100;
  proof.step_end = 104;
  proof.receipts_root = merkle_root({});
  proof.layer_end = 6;
  proof.has_embedding = proof.has_lm_head = true;
  proof.model_hash_start.emplace().fill(0x22);
  proof.model_hash_end = proof.model_hash_start;
  proof.gradient_commitment.emplace().fill(0x33);
  proof.data_hash.emplace().fill(0x44);
  proof.gradient_norm_e6 = 812'345;
  proof.loss_e6 = 5'123'456;
  proof.batch_size = 8;
  proof.seq_len = 256;
  proof.architecture_id = "00112233445566aa";
  return proof;
}

} // namespace

TEST_CASE("a proof's payload and id are those that proof_worked_values.py gives") {
  const std::string payload = canonical_payload(worked_proof());
  CHECK(kernels::to_hex(proof_id_of(payload)) ==
        "42becba4cce388d92a2e1fd2b7d9f6ef3c6bc89fa86f6c63fa222190c348781a");
}

TEST_CASE("a proof reads back from its payload, with and without what may be missing") {
  work_proof proof = worked_proof();
  for (int missing = 0; missing < 2; ++missing) {
    const std::string payload = canonical_payload(proof);
    const auto read = read_proof(payload);
    REQUIRE(read);
    CHECK(canonical_payload(*read) == payload);
    CHECK(read->model_hash_start == proof.model_hash_start);
    CHECK(read->loss_e6 == proof.loss_e6);
    proof.model_hash_start.reset();
    proof.model_hash_end.reset();
    proof.gradient_commitment.reset();
    proof.data_hash.reset();
    proof.loss_e6.reset();
    proof.gradient_norm_e6.reset();
  }
}

TEST_CASE("a payload that differs from the canonical text by one byte is another proof or none") {
  const std::string payload = canonical_payload(worked_proof());
  for (size_t at = 0; at < payload.size(); ++at)
    for (const char with : {'0', '9', 'A', 'a', '=', '\n', '%', '\0', ' '}) {
      if (payload[at] == with)
        continue;
      std::string changed = payload;
      changed[at] = with;
      const auto read = read_proof(changed);
      if (read && canonical_payload(*read) != changed)
        FAIL("a second text for one proof, at byte " << at);
    }
  for (size_t size = 0; size < payload.size(); ++size)
    REQUIRE_FALSE(read_proof(std::string_view(payload).substr(0, size)));
  CHECK_FALSE(read_proof(payload + "\n"));
  CHECK_FALSE(read_proof(payload + "more=1\n"));
  CHECK_FALSE(read_proof(std::string(proof_bytes_max + 1, 'x')));
}

TEST_CASE("random bytes and times beyond all clocks are no proof") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 2'000; ++i) {
    std::string bytes(random() % 300, '\0');
    for (auto& byte : bytes)
      byte = static_cast<char>(random());
    CHECK_FALSE(read_proof(std::string(proof_tag) + "\n" + bytes));
  }
  std::string payload = canonical_payload(worked_proof());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = payload;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  CHECK_FALSE(read_proof(with("timestamp_us=1768435230000000", "timestamp_us=18446744073709551615")));
  CHECK_FALSE(read_proof(with("uptime_ms=60000", "uptime_ms=18446744073709551616")));
  CHECK_FALSE(read_proof(with("uptime_ms=60000", "uptime_ms=060000")));
  CHECK_FALSE(read_proof(with("uptime_ms=60000", "uptime_ms=-1")));
  CHECK_FALSE(read_proof(with("is_async=0", "is_async=2")));
}

TEST_CASE("a proof is shown by its training, else its receipts, else its data, else its uptime") {
  work_proof proof;
  CHECK(type_of(proof) == proof_type::uptime);
  proof.data_samples = 1;
  CHECK(type_of(proof) == proof_type::data);
  proof.receipt_count = 1;
  CHECK(type_of(proof) == proof_type::forward);
  proof.label_tokens = 1;
  CHECK(type_of(proof) == proof_type::training);
}
