#include "actors/ledger/receipt.hpp"

#include "actors/identity/wire.hpp"
#include "tests/actors/ledger/book_fixture.hpp"
#include "tests/actors/ledger/receipt_fixture.hpp"

#include <random>

using namespace neuroshard;
using namespace neuroshard::testing;

namespace {

constexpr int64_t receipt_now_ms = 1'768'435'240'000;

struct two_nodes {
  node_identity worker = identity_of("some-worker", 2); // signs with a key its wallet delegates to
  node_identity driver = identity_of("some-driver");
  receipt work = work_for(worker, driver, "inf_0123", 4, 168);

  caf::expected<signed_receipt> read(std::string_view worker_blob, std::string_view driver_blob = {}) const {
    return read_receipt(worker_blob, driver_blob, receipt_now_ms);
  }
};

} // namespace

TEST_CASE("a receipt's bytes are those that protoc writes") {
  receipt of;
  of.worker_node_id = "0123456789abcdef0123456789abcdef";
  of.driver_node_id = "fedcba9876543210fedcba9876543210";
  of.kind = receipt_kind::training;
  of.work_id = "session-7";
  of.layer_begin = 3;
  of.layer_end = 300;
  of.head = true;
  of.tokens = uint64_t{1} << 48;
  of.steps = 1;
  of.model_version = 42;
  of.started_unix_ms = 1'768'435'230'000;
  of.ended_unix_ms = 1'768'435'299'999;
  of.nonce = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  const std::string bytes = encode_receipt(of);
  CHECK(kernels::to_hex(std::span(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size())) ==
        "0a2030313233343536373839616263646566303132333435363738396162636465661220666564636261393837"
        "36353433323130666564636261393837363534333231301802220973657373696f6e2d37280330ac0240014880"
        "8080808080405001582a60b0cad0f7bb33689fedd4f7bb3372100102030405060708090a0b0c0d0e0f10");
  const auto back = decode_receipt(bytes);
  REQUIRE(back);
  CHECK(*back == of);
  CHECK(back->work() == uint64_t{297} << 48);
  of.layer_begin = 0;
  of.layer_end = 65'536; // x 2^48 is 2^64
  CHECK(of.work() == UINT64_MAX);
}

TEST_CASE_FIXTURE(two_nodes, "a receipt is signed by the worker and counter-signed by the driver") {
  const auto mine = signed_by(worker, work);
  auto read_back = read(mine);
  REQUIRE(read_back);
  CHECK(read_back->what == work);
  CHECK(read_back->id == kernels::sha256::of(std::string_view(encode_receipt(work))));
  CHECK(read_back->worker.node_id == worker.node_id());
  CHECK(read_back->worker.address == worker.address());
  CHECK(!read_back->driver);
  read_back = read(mine, countersigned_by(driver, mine));
  REQUIRE(read_back);
  REQUIRE(read_back->driver);
  CHECK(read_back->driver->node_id == driver.node_id());
  CHECK(read_back->driver->address == driver.address());
}

TEST_CASE_FIXTURE(two_nodes, "nobody signs in another's place") {
  CHECK(code_of(make_receipt(driver, work).error()) == errc::forbidden);
  const auto mine = signed_by(worker, work);
  CHECK(code_of(countersign(worker, mine).error()) == errc::forbidden);
  // The payload is the worker's, the signature another node's.
  const auto forged = encode_signed_blob(driver.sign_as_node(receipt_tag, encode_receipt(work)));
  CHECK(reason_of(read(forged).error()) == "wrong_signer");
  // A signature of the right node for another purpose.
  const auto borrowed = encode_signed_blob(worker.sign_as_node(countersign_tag, encode_receipt(work)));
  CHECK(reason_of(read(borrowed).error()) == "bad_signature");
  const auto own_word = encode_signed_blob(worker.sign_as_node(countersign_tag, mine));
  CHECK(reason_of(read(mine, own_word).error()) == "wrong_signer");
  CHECK(reason_of(read(mine, mine).error()) == "bad_signature");
  auto more = work;
  more.tokens = 169;
  const auto others = countersigned_by(driver, signed_by(worker, more));
  CHECK(reason_of(read(mine, others).error()) == "other_receipt");
  // A delegation has to be in force.
  const int64_t later_ms = receipt_now_ms + (delegation_days + 1) * 86'400'000LL;
  CHECK(reason_of(read_receipt(mine, {}, later_ms).error()) == "bad_delegation");
}

TEST_CASE_FIXTURE(two_nodes, "fields out of their bounds are refused by name, made or read") {
  const auto refused_for = [&](auto&& change) {
    auto wrong = work;
    change(wrong);
    const auto made = make_receipt(worker, wrong);
    const auto got = read(encode_signed_blob(worker.sign_as_node(receipt_tag, encode_receipt(wrong))));
    REQUIRE(!made);
    REQUIRE(!got);
    CHECK(code_of(made.error()) == errc::invalid_request);
    CHECK(code_of(got.error()) == errc::invalid_request);
    CHECK(field_of(made.error()) == field_of(got.error()));
    return field_of(made.error());
  };
  CHECK(refused_for([](receipt& r) { r.worker_node_id = "0123"; }) == "worker_node_id");
  CHECK(refused_for([](receipt& r) { r.worker_node_id[0] = 'A'; }) == "worker_node_id");
  CHECK(refused_for([](receipt& r) { r.driver_node_id.clear(); }) == "driver_node_id");
  CHECK(refused_for([](receipt& r) { r.driver_node_id = r.worker_node_id; }) == "driver_node_id");
  CHECK(refused_for([](receipt& r) { r.kind = static_cast<receipt_kind>(0); }) == "kind");
  CHECK(refused_for([](receipt& r) { r.kind = static_cast<receipt_kind>(3); }) == "kind");
  CHECK(refused_for([](receipt& r) { r.work_id.clear(); }) == "work_id");
  CHECK(refused_for([](receipt& r) { r.work_id = "inf 1"; }) == "work_id");
  CHECK(refused_for([](receipt& r) { r.work_id = "inf\n1"; }) == "work_id");
  CHECK(refused_for([](receipt& r) { r.work_id = std::string(129, 'a'); }) == "work_id");
  CHECK(refused_for([](receipt& r) { r.layer_begin = 65'537, r.layer_end = 65'537; }) == "layer_end");
  CHECK(refused_for([](receipt& r) { r.layer_begin = r.layer_end + 1; }) == "layer_end");
  CHECK(refused_for([](receipt& r) { r.tokens = (uint64_t{1} << 48) + 1; }) == "tokens");
  CHECK(refused_for([](receipt& r) { r.steps = UINT64_MAX; }) == "steps");
  CHECK(refused_for([](receipt& r) { r.model_version = uint64_t{1} << 63; }) == "model_version");
  CHECK(refused_for([](receipt& r) { r.started_unix_ms = r.ended_unix_ms + 1; }) == "ended_unix_ms");
  CHECK(refused_for([](receipt& r) { r.ended_unix_ms = 253'402'300'800'000; }) == "ended_unix_ms");
  // On the wire a negative time is a large number.
  auto negative = work;
  negative.started_unix_ms = -1;
  CHECK(!make_receipt(worker, negative));
  CHECK(!read(encode_signed_blob(worker.sign_as_node(receipt_tag, encode_receipt(negative)))));
}

TEST_CASE_FIXTURE(two_nodes, "what no receipt's bytes can be is refused, though it is signed") {
  const auto sent = [&](const std::string& payload) {
    const auto got = read(encode_signed_blob(worker.sign_as_node(receipt_tag, payload)));
    REQUIRE(!got);
    return code_of(got.error());
  };
  const std::string good = encode_receipt(work);
  CHECK(sent("") == errc::invalid_request);
  CHECK(sent(good.substr(0, good.size() - 18)) == errc::invalid_request);  // without the nonce
  CHECK(sent(good + std::string("\x38\x02", 2)) == errc::invalid_request); // embedding = 2
  CHECK(sent(good + std::string("\x28\x80\x80\x80\x80\x10", 6)) == errc::invalid_request); // begin = 2^32
  CHECK(sent(good + std::string("\x72\x01\x00", 3)) == errc::invalid_request);             // a short nonce
  CHECK(sent(good + std::string("\x08\x01", 2)) == errc::invalid_request); // a number for a text
  CHECK(sent(good + std::string("\x7b\x7c", 2)) == errc::invalid_request); // a group
  std::string padded = good;
  wire::put_bytes(padded, 99, std::string(receipt_bytes_max, 'x'));
  CHECK(sent(padded) == errc::invalid_request);
  // An unknown field of a later version is passed over.
  std::string newer = good;
  wire::put_unsigned(newer, 99, 5);
  CHECK(read(encode_signed_blob(worker.sign_as_node(receipt_tag, newer))));
}

TEST_CASE_FIXTURE(two_nodes, "truncated, flipped and inflated bytes are never taken for a receipt") {
  const auto mine = signed_by(worker, work);
  const auto theirs = countersigned_by(driver, mine);
  // The delegation alone is not under the node's signature: without it the same words are those of the node
  // key's own address.
  const auto harmless = [&](const caf::expected<signed_receipt>& got) {
    return !got || (got->what == work && got->worker.node_id == worker.node_id() &&
                    got->worker.address == address_of(worker.node_public_key()));
  };
  size_t taken = 0;
  for (size_t size = 0; size < mine.size(); ++size) {
    const auto got = read(std::string_view(mine).substr(0, size));
    CHECK(harmless(got));
    taken += got ? 1 : 0;
  }
  CHECK(taken == 1);
  for (size_t size = 1; size < theirs.size(); ++size)
    CHECK(!read(mine, std::string_view(theirs).substr(0, size)));
  const char* given = std::getenv("NEUROSHARD_TEST_SEED");
  const auto seed =
      given == nullptr ? std::random_device{}() : static_cast<uint32_t>(std::strtoul(given, nullptr, 10));
  std::printf("receipt_test: NEUROSHARD_TEST_SEED=%u\n", seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 400; ++i) {
    auto worse = mine, worse_answer = theirs;
    worse[random() % worse.size()] ^= static_cast<char>(1 << random() % 8);
    worse_answer[random() % worse_answer.size()] ^= static_cast<char>(1 << random() % 8);
    INFO("seed " << seed << ", turn " << i);
    CHECK(harmless(read(worse)));
    CHECK(!read(worse, theirs));
    CHECK(!read(mine, worse_answer));
    std::string noise(random() % 300, '\0');
    for (auto& byte : noise)
      byte = static_cast<char>(random());
    CHECK(!read(noise));
    CHECK(!decode_receipt(noise));
    CHECK(!countersign(driver, noise));
  }
  const std::string inflated = mine + std::string(receipt_blob_bytes_max, '\0');
  CHECK(field_of(read(inflated).error()) == "worker_blob");
  CHECK(field_of(countersign(driver, inflated).error()) == "worker_blob");
  CHECK(field_of(read(mine, theirs + std::string(receipt_blob_bytes_max, '\0')).error()) == "driver_blob");
}
