#include "tests/actors/inference_scheduler/route_generation_fixture.hpp"
#include "tests/actors/ledger/book_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;
using neuroshard::testing::book_fixture;

namespace {

constexpr uint32_t answer_tokens = 10;
/// Of the prompt "hello" and the answer; the last token is sampled and does not go through the model again.
constexpr uint64_t positions = 6 + answer_tokens - 1;

struct receipt_fixture_of_route : route_generation_fixture {
  receipt_fixture_of_route() {
    give_keys();
    other_wallet = {1, 2, 3, 4};
  }
  const settle_inference& bill() const {
    REQUIRE(money->settled.size() == 1);
    return money->settled.front();
  }
  const worker_share* share_of(size_t node) const {
    for (const auto& one : bill().workers)
      if (one.address == identities[node]->address())
        return &one;
    return nullptr;
  }
  /// Changes the receipt in the answer of a node: it signs what `change` makes of it.
  void forge(size_t node, const std::function<void(receipt&)>& change) {
    network->on_answer = [this, node, change](const std::string& from, routed_forward_reply& reply) {
      if (from != address(node))
        return true;
      for (auto& blob : reply.receipts) {
        auto what = decode_receipt(blob.payload);
        REQUIRE(what);
        change(*what);
        blob = identities[node]->sign_as_node(receipt_tag, encode_receipt(*what));
      }
      return true;
    };
  }
};

bool closes(const routed_forward& call) {
  return !call.work.rows.empty() && call.work.rows.front().close;
}

} // namespace

TEST_CASE_FIXTURE(receipt_fixture_of_route,
                  "nodes of other wallets are paid by receipts that both sides signed and keep") {
  spawn();
  auto sink = start();
  CHECK(run({sink}) == 0);
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  REQUIRE(bill().workers.size() == 3);
  CHECK(bill().workers[0].address == identities[0]->address());
  CHECK(bill().workers[0].receipt_id.empty());
  for (const size_t node : {1, 2}) {
    const auto* share = share_of(node);
    REQUIRE(share);
    CHECK(share->counted_work == positions);
    CHECK(share->credited_work == positions);
    CHECK(share->receipt_id.size() == 64);
    // The worker has its own word, then both.
    REQUIRE(books[node].size() == 2);
    CHECK(books[node][0].driver_blob.empty());
    CHECK(books[node][1].worker_blob == books[node][0].worker_blob);
    const auto both =
        read_receipt(books[node][1].worker_blob, books[node][1].driver_blob, clock->unix_us() / 1'000);
    REQUIRE(both);
    REQUIRE(both->driver);
    CHECK(both->driver->node_id == id(0));
    CHECK(both->what.work_id == sink->result->id);
    CHECK(both->what.tokens == positions);
    CHECK(both->what.head == (node == 2));
    CHECK_FALSE(both->what.embedding);
    CHECK(kernels::to_hex(both->id) == share->receipt_id);
  }
  CHECK(bill().validator == identities[2]->address());
  CHECK(bill().validator_receipt_id == share_of(2)->receipt_id);
  CHECK(money->receipts.size() == 2);
  CHECK(refusals.empty());
}

TEST_CASE_FIXTURE(receipt_fixture_of_route,
                  "the payer's book pays the shares, and a second settlement nothing") {
  spawn();
  auto sink = start();
  run({sink});
  REQUIRE(sink->result);
  book_fixture f;
  f.open();
  REQUIRE(f.me() == identities[0]->address());
  using neuroshard::testing::operator""_neuro;
  f.fund(1_neuro);
  f.done(reserve_inference{sink->result->id, bill().prompt_tokens, answer_tokens});
  for (const auto& what : money->receipts)
    CHECK(f.done(what).confirmed);
  const auto settled = f.done(bill());
  CHECK(settled.cost == 0.0016_neuro);
  const auto reader = f.reader();
  const auto balance = [&](size_t node) {
    const auto one = reader->balance(identities[node]->address());
    REQUIRE(one);
    return one->available;
  };
  // 95 % of 0.0016: 70 % of it to the workers by layers x tokens, 15 % to the head.
  const neuro_amount worker{(0.001064_neuro).atto / 3};
  CHECK(balance(1) == worker);
  CHECK(balance(2).atto == worker.atto + (0.000228_neuro).atto);
  const auto again = f.done(bill());
  CHECK(again.transaction_id == settled.transaction_id);
  for (const auto& what : money->receipts) // and a receipt that is handed over again is the one that is known
    CHECK(f.done(what).known_before);
  CHECK(balance(1) == worker);
  f.verify(true);
}

TEST_CASE_FIXTURE(receipt_fixture_of_route,
                  "one that dies is not paid, and the others are for each session") {
  spawn();
  int calls = 0;
  network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == address(1) && !closes(call) && ++calls == 5)
      network->down.insert(to);
    return !network->down.contains(to);
  };
  auto sink = start();
  run({sink});
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  CHECK(share_of(1) == nullptr);
  CHECK(share_of(3) != nullptr);
  std::set<std::string> ids;
  uint64_t counted = 0, of_head = 0;
  for (const auto& one : bill().workers) {
    counted += one.counted_work;
    CHECK(one.credited_work <= one.counted_work);
    if (one.address == identities[2]->address()) {
      ids.insert(one.receipt_id);
      of_head += one.credited_work;
    }
  }
  CHECK(counted == 3 * positions); // a token is paid once, however often it was computed
  CHECK(ids.size() == 2);
  CHECK(of_head == positions);
  CHECK(bill().validator == identities[2]->address());
}

TEST_CASE("a receipt that claims too much, or something else, is refused and pays nothing") {
  struct lie {
    const char* reason;
    std::function<void(receipt&)> change;
  };
  const lie lies[] = {
      {"above_count", [](receipt& r) { r.tokens += 5; }},
      {"above_count", [](receipt& r) { r.head = true; }},
      {"above_count", [](receipt& r) { r.embedding = true; }},
      {"above_count", [](receipt& r) { r.steps = 1; }},
      {"other_work", [](receipt& r) { r.work_id = "inf_of_somebody_else"; }},
      {"other_work", [](receipt& r) { r.layer_begin = 0; }},
      {"other_work", [](receipt& r) { r.layer_end = 3; }},
      {"other_work", [](receipt& r) { r.kind = receipt_kind::training; }},
      {"other_work", [](receipt& r) { r.model_version = 9; }},
      {"other_work", [](receipt& r) { r.driver_node_id = std::string(32, 'd'); }},
      {"wrong_signer", [](receipt& r) { r.worker_node_id = std::string(32, 'd'); }},
  };
  for (const auto& one : lies) {
    INFO(one.reason);
    receipt_fixture_of_route f;
    f.forge(1, one.change);
    f.spawn();
    auto sink = f.start();
    f.run({sink});
    REQUIRE(sink->result);
    CHECK(sink->result->finish_reason == "length");
    CHECK(f.share_of(1) == nullptr);
    CHECK(f.share_of(2) != nullptr);
    CHECK(f.money->receipts.size() == 1);
    REQUIRE(f.refusals.size() == 1);
    CHECK(f.refusals[0].node_id == f.id(1));
    CHECK(f.refusals[0].reason == one.reason);
  }
}

TEST_CASE_FIXTURE(receipt_fixture_of_route, "a receipt that is given for two sessions pays for one") {
  std::optional<signed_blob> first;
  int calls = 0;
  network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == address(1) && !closes(call) && ++calls == 5)
      network->down.insert(to);
    return !network->down.contains(to);
  };
  network->on_answer = [&](const std::string& from, routed_forward_reply& reply) {
    if (from == address(2) && reply.receipts.size() == 1)
      reply.receipts.front() = first.emplace(first.value_or(reply.receipts.front()));
    return true;
  };
  spawn();
  auto sink = start();
  run({sink});
  REQUIRE(first);
  REQUIRE(sink->result);
  size_t named = 0;
  uint64_t credited = 0;
  for (const auto& one : bill().workers)
    if (one.address == identities[2]->address()) {
      ++named;
      credited += one.credited_work;
    }
  CHECK(named == 1);
  CHECK(credited == decode_receipt(first->payload)->tokens);
  CHECK(credited < positions);
}

TEST_CASE_FIXTURE(receipt_fixture_of_route,
                  "a settlement waits two seconds for a receipt, and goes on without it") {
  spawn();
  network->on_forward = [&](const std::string& to, routed_forward& call) {
    if (to == address(1) && closes(call))
      network->stopped.insert(to);
    return true;
  };
  auto sink = start();
  const int64_t took_us = run({sink});
  REQUIRE(sink->result);
  CHECK(sink->result->finish_reason == "length");
  CHECK(took_us >= 2'000'000);
  CHECK(took_us <= 2'500'000);
  CHECK(share_of(1) == nullptr);
  CHECK(share_of(2) != nullptr);
  CHECK(money->open.empty());
}

TEST_CASE_FIXTURE(receipt_fixture_of_route, "work that costs nothing has receipts too") {
  other_wallet.clear();
  spawn();
  auto sink = start();
  run({sink});
  REQUIRE(sink->result);
  sched.run();
  CHECK(money->settled.empty());
  CHECK(money->receipts.size() == 2);
  CHECK(books[1].size() == 2);
}
