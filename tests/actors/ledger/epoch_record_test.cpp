#include "actors/ledger/epoch_record.hpp"

#include "actors/ledger/merkle.hpp"
#include "tests/actors/ledger/record_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

kernels::digest digest_of_text(std::string_view text) {
  return kernels::sha256::of(text);
}

/// Three epochs of one book, as its node would close them.
struct epoch_fixture {
  node_identity node = identity_of("correct-horse");
  std::vector<epoch_record> epochs;
  std::vector<std::string> payloads;
  std::vector<signature> signatures;

  epoch_fixture() {
    for (uint64_t n = 0; n < 3; ++n) {
      epoch_record epoch;
      epoch.chain_id = digest_of_text("book");
      epoch.epoch_id = 29'473'920 + 2 * n; // the minutes between were empty
      epoch.start_us = static_cast<int64_t>(epoch.epoch_id) * epoch_us;
      epoch.end_us = epoch.start_us + epoch_us;
      epoch.proofs_root = digest_of_text("proofs" + std::to_string(epoch.epoch_id));
      epoch.receipts_root = epoch.commitments_root = merkle_root({});
      epoch.total_reward = "17";
      epoch.last_seq = 10 * (n + 1);
      epoch.last_row_hash = digest_of_text("row" + std::to_string(epoch.last_seq));
      epoch.tx_root =
          digest_of_text("tx" + std::to_string(10 * n + 1) + "-" + std::to_string(epoch.last_seq));
      epochs.push_back(epoch);
    }
    sign_all();
  }
  void sign_all() {
    payloads.clear();
    signatures.clear();
    for (size_t n = 0; n < epochs.size(); ++n) {
      epochs[n].prev_epoch_hash = n == 0 ? epochs[n].chain_id : epoch_hash_of(payloads[n - 1]);
      payloads.push_back(canonical_payload(epochs[n]));
      signatures.push_back(node.sign_as_node(epoch_tag, payloads.back()).sig);
    }
  }
  epoch_evidence evidence() const {
    return {digest_of_text("book"), node.node_public_key(),
            [](uint64_t seq) { return std::optional(digest_of_text("row" + std::to_string(seq))); },
            [](uint64_t id) { return digest_of_text("proofs" + std::to_string(id)); },
            [](uint64_t first, uint64_t last) {
              return digest_of_text("tx" + std::to_string(first) + "-" + std::to_string(last));
            }};
  }
  std::string check() const {
    epoch_chain_check chain(evidence());
    for (size_t n = 0; n < payloads.size(); ++n)
      if (auto fault = chain.next(payloads[n], epoch_hash_of(payloads[n]), signatures[n]); !fault.empty())
        return fault;
    return {};
  }
};

} // namespace

TEST_CASE_FIXTURE(epoch_fixture, "a chain of epochs in order passes, with the book and without it") {
  CHECK(check() == "");
  epoch_chain_check alone({digest_of_text("book"), node.node_public_key(), {}, {}, {}});
  for (size_t n = 0; n < payloads.size(); ++n)
    CHECK(alone.next(payloads[n], epoch_hash_of(payloads[n]), signatures[n]) == "");
}

TEST_CASE_FIXTURE(epoch_fixture, "an epoch reads back from its payload and from no other text") {
  for (const auto& payload : payloads) {
    const auto read = read_epoch(payload);
    REQUIRE(read);
    CHECK(canonical_payload(*read) == payload);
    for (size_t size = 0; size < payload.size(); ++size)
      REQUIRE_FALSE(read_epoch(std::string_view(payload).substr(0, size)));
  }
}

TEST_CASE_FIXTURE(epoch_fixture, "what was changed, left out, repeated or signed by another is found") {
  const auto whole = epochs;
  payloads[1].replace(payloads[1].find("total_reward=17"), 15, "total_reward=18");
  CHECK(check().find("is not signed") != std::string::npos);
  epochs = whole;
  sign_all();
  epoch_chain_check chain(evidence());
  CHECK(chain.next(payloads[0], digest_of_text("x"), signatures[0]).find("does not hash") !=
        std::string::npos);
  payloads.erase(payloads.begin() + 1);
  signatures.erase(signatures.begin() + 1);
  CHECK(check().find("does not link") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[2].epoch_id = epochs[1].epoch_id;
  epochs[2].start_us = epochs[1].start_us;
  epochs[2].end_us = epochs[1].end_us;
  sign_all();
  CHECK(check().find("does not come after") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[1].end_us += 1;
  sign_all();
  CHECK(check().find("times") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[1].last_row_hash[0] ^= 1;
  sign_all();
  CHECK(check().find("last row") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[1].proofs_root[0] ^= 1;
  sign_all();
  CHECK(check().find("other proofs") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[1].tx_root[0] ^= 1;
  sign_all();
  CHECK(check().find("other transactions") != std::string::npos);
  epochs = whole;
  sign_all();
  epochs[0].chain_id = digest_of_text("other");
  sign_all();
  CHECK(check().find("another book") != std::string::npos);
}
