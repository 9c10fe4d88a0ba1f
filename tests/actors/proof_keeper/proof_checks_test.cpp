#include "actors/proof_keeper/proof_checks.hpp"

#include "tests/actors/proof_keeper/proof_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

struct checks_fixture {
  economics_params params;
  node_identity node = identity_of("correct-horse");
  proof_rules rules{params, kernels::sha256::of(std::string_view("book")), "00112233445566aa", 6,
                    1'768'435'230'000'000};
  scripted_records records;
  work_proof proof = good_proof(node, rules);

  signed_blob signed_now() const { return node.sign_as_node(proof_tag, canonical_payload(proof)); }
  proof_verdict judge(const signed_blob& blob) {
    std::optional<work_proof> read;
    return check_proof(blob, rules, records, read);
  }
  proof_verdict judge() { return judge(signed_now()); }
  /// The one reason that a change of the good proof is refused with.
  template <class Change>
  std::string refused(proof_check at, Change change, bool slashable = false) {
    const work_proof before = proof;
    change(proof);
    const auto verdict = judge();
    proof = before;
    CHECK(verdict.failed == at);
    CHECK(verdict.slashable == slashable);
    return verdict.reason;
  }
};

} // namespace

TEST_CASE_FIXTURE(checks_fixture, "a proof in order passes, once") {
  const auto blob = signed_now();
  CHECK(judge(blob).accepted());
  records.accept(proof, blob.payload);
  const auto again = judge(blob);
  CHECK(again.failed == proof_check::replay);
  CHECK(again.reason == "replayed");
  // Another proof with a known nonce is a replay too.
  CHECK(refused(proof_check::replay, [](auto& p) { p.loss_e6 = 1; }) == "nonce_reused");
}

TEST_CASE_FIXTURE(checks_fixture, "a proof that says what cannot be is refused for its form") {
  CHECK(refused(proof_check::form, [](auto& p) { p.chain_id[0] ^= 1; }) == "other_chain");
  CHECK(refused(proof_check::form, [](auto& p) { p.architecture_id = "00112233445566ab"; }) ==
        "other_architecture");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.layer_end = 7; }, true) == "layers_out_of_range");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.layer_begin = 6, p.layer_end = 5; }, true) ==
        "layers_out_of_range");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.steps = 5; }, true) == "steps_out_of_range");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.label_tokens = uint64_t{1} << 60; }, true) == "out_of_range");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.receipt_count = 1; }, true) == "receipts_root");
  CHECK(refused(
            proof_check::form, [](auto& p) { p.contribution_age_s = 1; }, true) == "contribution_age");
  auto blob = signed_now();
  blob.payload += "x";
  CHECK(judge(blob).reason == "malformed");
}

TEST_CASE_FIXTURE(checks_fixture,
                  "a proof that another key or nobody signed is refused, and nobody is slashed for it") {
  auto blob = signed_now();
  blob.sig[5] ^= 1;
  CHECK(judge(blob).failed == proof_check::signature);
  CHECK(judge(blob).reason == "bad_signature");
  const auto other = identity_of("battery-staple");
  blob = other.sign_as_node(proof_tag, canonical_payload(proof));
  CHECK(judge(blob).reason == "other_key");
  // Its bytes refute themselves, but the node they accuse did not sign them.
  proof.steps = 5;
  const auto verdict = judge(other.sign_as_node(proof_tag, canonical_payload(proof)));
  CHECK(verdict.failed == proof_check::form);
  CHECK_FALSE(verdict.slashable);
}

TEST_CASE_FIXTURE(checks_fixture,
                  "the other signature of one message, with s above half the order, is not accepted") {
  // n - s also solves the equation; the order n of secp256k1 is a published constant.
  const uint8_t order[32] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                             0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48,
                             0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41};
  auto blob = signed_now();
  int borrow = 0;
  for (int i = 31; i >= 0; --i) {
    const int difference = order[i] - blob.sig[32 + i] - borrow;
    borrow = difference < 0;
    blob.sig[32 + i] = static_cast<uint8_t>(difference + (borrow ? 256 : 0));
  }
  CHECK(judge(blob).failed == proof_check::signature);
}

TEST_CASE_FIXTURE(checks_fixture,
                  "a further node of a wallet signs with its delegation, as long as that holds") {
  const auto second = identity_of("correct-horse", 1);
  proof = good_proof(second, rules);
  CHECK(proof.node_id != node.node_id());
  auto blob = second.sign_as_node(proof_tag, canonical_payload(proof));
  CHECK(judge(blob).accepted());
  auto without = blob;
  without.delegation.clear();
  CHECK(judge(without).reason == "other_key");
  auto foreign = blob;
  foreign.delegation = identity_of("battery-staple", 1).sign_as_node(proof_tag, "x").delegation;
  CHECK(judge(foreign).reason == "bad_delegation");
  rules.now_us += 31LL * 86'400 * 1'000'000;
  CHECK(judge(blob).reason == "bad_delegation");
}

TEST_CASE_FIXTURE(checks_fixture, "a proof is neither old nor from the future, and of its minute") {
  const auto at = [](auto& p, int64_t us) {
    p.timestamp_us = us;
    p.epoch_id = static_cast<uint64_t>(us / epoch_us);
  };
  const int64_t now = rules.now_us;
  CHECK(refused(proof_check::freshness, [&](auto& p) { at(p, now - 300'000'001); }) == "too_old");
  CHECK(refused(proof_check::freshness, [&](auto& p) { at(p, now + 60'000'001); }) == "in_the_future");
  CHECK(refused(proof_check::freshness, [&](auto& p) { ++p.epoch_id; }) == "epoch");
  at(proof, now - 300'000'000);
  CHECK(judge().accepted());
  at(proof, now + 60'000'000);
  CHECK(judge().accepted());
}

TEST_CASE_FIXTURE(checks_fixture, "proofs and tokens have their rates") {
  records.accepted = 119;
  CHECK(judge().accepted());
  records.accepted = 120;
  CHECK(judge().reason == "too_many_proofs");
  records.accepted = 0;
  records.tokens = 1'000'000 - 8'192;
  CHECK(judge().accepted());
  ++records.tokens;
  CHECK(judge().failed == proof_check::rate);
  CHECK(judge().reason == "too_many_tokens");
}

TEST_CASE_FIXTURE(checks_fixture,
                  "nobody is paid for layers, an embedding or a head that the layer map gave to others") {
  records.held = held_layers{0, 3, true, false};
  CHECK(judge().reason == "layers_not_held");
  proof.layer_end = 3;
  CHECK(judge().reason == "head_not_held");
  proof.has_lm_head = false;
  CHECK(judge().accepted());
  records.held->embedding = false;
  CHECK(judge().reason == "embedding_not_held");
  records.held.reset();
  CHECK(judge().reason == "not_in_layer_map");
  CHECK(judge().failed == proof_check::role);
}

TEST_CASE_FIXTURE(checks_fixture, "work that no minute can hold is refused") {
  CHECK(refused(
            proof_check::plausibility, [](auto& p) { p.uptime_ms = 120'001; }, true) == "uptime_too_long");
  CHECK(refused(proof_check::plausibility, [](auto& p) { p.uptime_ms = 9'999; }) == "uptime_too_short");
  CHECK(refused(proof_check::plausibility,
                [](auto& p) { p.steps = 2'001, p.step_end = p.step_begin + 2'001; }) == "too_many_steps");
  CHECK(refused(proof_check::plausibility, [](auto& p) { p.data_samples = 1'001; }) == "too_many_samples");
  records.last_us = proof.uptime_begin_us() + 1;
  CHECK(refused(
            proof_check::plausibility, [](auto&) {}, true) == "uptime_overlaps");
  records.last_us = proof.uptime_begin_us();
  CHECK(judge().accepted());
  // 8,192 tokens in a minute: 1.2 times 6,827 is just enough.
  records.speed = measured_speed{6'826, 0};
  CHECK(refused(proof_check::plausibility, [](auto&) {}) == "faster_than_measured");
  records.speed = measured_speed{6'827, 0};
  CHECK(judge().accepted());
  // The step that ends in this minute may have begun before it.
  records.speed = measured_speed{5'120, 2'048};
  CHECK(judge().accepted());
  records.speed = measured_speed{5'119, 2'048};
  CHECK(refused(proof_check::plausibility, [](auto&) {}) == "faster_than_measured");
}

TEST_CASE_FIXTURE(checks_fixture, "training without its commitment, hashes, loss or steps refutes itself") {
  const auto training = proof_check::training;
  CHECK(refused(
            training, [](auto& p) { p.gradient_commitment.reset(); }, true) == "no_commitment");
  CHECK(refused(
            training, [](auto& p) { p.data_hash.reset(); }, true) == "no_commitment");
  CHECK(refused(
            training, [](auto& p) { p.model_hash_start.reset(); }, true) == "no_model_hash");
  CHECK(refused(
            training, [](auto& p) { p.model_hash_end.reset(); }, true) == "no_model_hash");
  CHECK(refused(
            training, [](auto& p) { p.steps = 0, p.step_end = p.step_begin; }, true) == "no_steps");
  CHECK(refused(
            training, [](auto& p) { p.loss_e6 = 0; }, true) == "loss");
  CHECK(refused(
            training, [](auto& p) { p.loss_e6.reset(); }, true) == "loss");
  CHECK(refused(
            training, [](auto& p) { p.gradient_norm_e6.reset(); }, true) == "gradient_norm");
  CHECK(refused(
            training, [](auto& p) { p.label_tokens = 4 * 8 * 256 + 1; }, true) == "too_many_tokens");
}

TEST_CASE_FIXTURE(checks_fixture, "receipts count only where both sides signed them") {
  const auto root = merkle_root({kernels::sha256::of(std::string_view("receipt"))});
  const auto claim = [&](auto& p) { p.receipts_root = root, p.receipt_count = 1; };
  CHECK(refused(proof_check::receipts, claim) == "receipts_differ");
  records.receipts[root] = 1;
  claim(proof);
  CHECK(judge().accepted());
  proof.receipt_count = 2;
  CHECK(judge().failed == proof_check::receipts);
}

TEST_CASE_FIXTURE(checks_fixture, "a minute of uptime needs no layers and no training") {
  work_proof idle;
  idle.chain_id = rules.chain_id;
  idle.node_id = node.node_id();
  idle.wallet = node.address();
  idle.timestamp_us = proof.timestamp_us;
  idle.epoch_id = proof.epoch_id;
  idle.nonce = proof.nonce;
  idle.uptime_ms = 60'000;
  idle.receipts_root = merkle_root({});
  idle.architecture_id = rules.architecture_id;
  proof = idle;
  records.held.reset();
  CHECK(judge().accepted());
}
