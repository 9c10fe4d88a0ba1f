#include "actors/ledger/ledger.hpp"
#include "tests/actors/ledger/proof_fixture.hpp"
#include "tests/gateway/http/node_fixture.hpp"

#include <caf/send.hpp>

using namespace neuroshard;
using namespace neuroshard::test;
using namespace neuroshard::testing;
using kind = http::json_value::kind;

namespace {

/// The server over a real book: what is posted is read back.
struct book_server : book_fixture {
  node_fixture node;
  ledger_actor ledger;

  void serve(neuro_amount funds) {
    open();
    fund(funds);
    node.services.book = reader();
    node.services.clock = clock;
    ledger = spawn_ledger(*node.system, std::move(book), options, true);
    caf::anon_send_exit(node.services.ledger.get(), caf::exit_reason::kill);
    node.services.ledger.set(ledger);
    node.start();
  }
  ~book_server() { node.server.reset(); }
};

} // namespace

TEST_CASE_FIXTURE(book_server, "a fresh wallet reads as zeros and empty lists") {
  open();
  book.reset();
  node.services.book = reader();
  node.services.clock = clock;
  node.start();
  auto json = node.get("/api/v1/wallet/balance").json();
  CHECK(text_at(json, "address") == me());
  for (const char* part : {"available", "staked", "pending", "total"})
    CHECK(text_at(json, std::string("balances.") + part) == "0.0");
  CHECK(at(json, "staking").type == kind::null);
  json = node.get("/api/v1/wallet/transactions").json();
  CHECK(at(json, "transactions").items.empty());
  CHECK(text_at(json, "limit") == "10");
  json = node.get("/api/v1/proofs?limit=100&offset=3&type=training").json();
  CHECK(at(json, "proofs").items.empty());
  CHECK(text_at(json, "stats.total_reward") == "0.0");
  CHECK(text_at(json, "limit") == "100");
  CHECK(text_at(json, "offset") == "3");
  CHECK(text_at(json, "total") == "0");
  json = node.get("/api/v1/stake/info").json();
  CHECK(text_at(json, "stake") == "0.0");
  CHECK(text_at(json, "stake_multiplier") == "1.0");
  CHECK(text_at(json, "duration_days") == "0");
  CHECK(at(json, "unlock_date").type == kind::null);
  CHECK(at(json, "validator.eligible").flag);
  CHECK(text_at(json, "validator.required_stake") == "0.0");
  json = node.get("/api/v1/wallet/rewards").json();
  CHECK(text_at(json, "total") == "0.0");
  CHECK(at(json, "by_day").items.size() == 31);
  for (const char* type : {"uptime", "inference", "training", "data", "validation"})
    CHECK(text_at(json, std::string("by_type.") + type) == "0.0");
  CHECK(node.get("/api/v1/rewards").body == node.get("/api/v1/wallet/rewards").body);
  json = node.get("/api/v1/wallet/reward-rate").json();
  CHECK(text_at(json, "role") == "driver");
  for (const char* field : {"base_rate", "role_multiplier", "stake_multiplier", "reputation_multiplier",
                            "effective_rate", "estimated_hourly", "estimated_daily"})
    CHECK(at(json, field).type == kind::number);
}

TEST_CASE_FIXTURE(book_server, "what is sent and staked is read back exactly") {
  serve(2'000_neuro);
  const std::string to = "0x" + std::string(38, '0') + "f1";
  const reply sent =
      node.post("/api/v1/wallet/send", "{\"to\":\"" + to + "\",\"amount\":250,\"memo\":\"rent\"}");
  CHECK(sent.status == 200);
  CHECK(text_at(sent.json(), "fee") == "0.25");
  CHECK(node.post("/api/v1/wallet/stake", R"({"amount":1000,"duration_days":30})").status == 200);

  auto json = node.get("/api/v1/wallet/balance").json();
  CHECK(text_at(json, "balances.staked") == "1000.0");
  CHECK(text_at(json, "staking.duration_days") == "30");
  CHECK(text_at(json, "staking.multiplier") == "1.1");

  json = node.get("/api/v1/wallet/transactions?limit=2").json();
  CHECK(at(json, "transactions").items.size() == 2);
  CHECK(text_at(json, "transactions.0.type") == "stake");
  CHECK(text_at(json, "transactions.1.type") == "send");
  CHECK(text_at(json, "transactions.1.amount") == "-250.0");
  CHECK(text_at(json, "transactions.1.fee") == "0.25");
  CHECK(text_at(json, "transactions.1.memo") == "rent");
  CHECK(text_at(json, "transactions.1.to") == to);
  CHECK(text_at(json, "transactions.1.status") == "confirmed");
  CHECK(text_at(json, "transactions.1.id") == text_at(sent.json(), "transaction_id"));
  CHECK(at(json, "transactions.0.memo").type == kind::null);
  CHECK(at(json, "transactions.0.details").type == kind::object);
  const std::string today = date_text(day_of(clock->us));
  json = node.get("/api/v1/wallet/transactions?type=send&start_date=" + today + "&end_date=" + today).json();
  CHECK(text_at(json, "total") == "1");
  json = node.get("/api/v1/wallet/transactions?type=reward&limit=1&offset=1").json();
  CHECK(text_at(json, "offset") == "1");

  json = node.get("/api/v1/wallet/stake").json();
  CHECK(text_at(json, "stake") == "1000.0");
  CHECK(text_at(json, "amount") == "1000.0");
  CHECK(text_at(json, "days_remaining") == "30");
  CHECK(text_at(json, "start_date") == today);
  const reply locked = node.post("/api/v1/wallet/unstake", "{}");
  CHECK(locked.status == 400);
  CHECK(text_at(locked.json(), "error.details.reason") == "stake_locked");
  CHECK(text_at(locked.json(), "error.details.unlock_date") == text_at(json, "unlock_date"));

  const reply poor = node.post("/api/v1/wallet/send", "{\"to\":\"" + to + "\",\"amount\":1000000}");
  CHECK(poor.status == 402);
  CHECK(text_at(poor.json(), "error.details.required") == "1001000.0");
  CHECK(text_at(poor.json(), "error.details.available") == text_at(poor.json(), "error.details.balance"));
  for (const std::string& bad :
       {me(), "0x" + std::string(40, '0'), std::string("0x12"), std::string("nobody")})
    CHECK(node.post("/api/v1/wallet/send", "{\"to\":\"" + bad + "\",\"amount\":1}").status == 400);
  CHECK(node.post("/api/v1/wallet/stake/extend", R"({"additional_days":400})").status == 400);
}

TEST_CASE_FIXTURE(book_server, "a transfer whose answer was lost is not made twice, one that was read is") {
  serve(1'000_neuro);
  const std::string path = "/api/v1/wallet/send";
  const std::string body = "{\"to\":\"0x" + std::string(38, '0') + "f1\",\"amount\":10}";
  const auto count = [&] {
    return text_at(node.get("/api/v1/wallet/transactions?type=send").json(), "total");
  };
  std::string first;
  {
    client c = node.connect();
    c.send_last("POST " + path + " HTTP/1.1\r\nHost: x\r\n" + bearer() +
                "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    first = c.receive().body;
    CHECK(first.find("transaction_id") != std::string::npos);
  }
  client c = node.connect();
  CHECK(c.request("POST", path, bearer(), body).body == first); // the retry
  CHECK(count() == "1");
  CHECK(c.request("GET", "/api/v1/status").status == 200); // a sign of life: delivered
  reply again;
  for (int i = 0; i < 100 && (again.body.empty() || again.body == first); ++i)
    again = c.request("POST", path, bearer(), body);
  CHECK(again.body != first);
  CHECK(count() == "2");

  const std::string keyed = bearer() + "Idempotency-Key: rent-1\r\n";
  const reply one = c.request("POST", path, keyed, body);
  CHECK(c.request("POST", path, keyed, body).body == one.body);
  CHECK(node.post(path, body, keyed).body == one.body);
  CHECK(
      c.request("POST", path, keyed, "{\"to\":\"0x" + std::string(38, '0') + "f1\",\"amount\":11}").status ==
      400);
  CHECK(count() == "3");
}

TEST_CASE_FIXTURE(book_server, "bad queries of the wallet are refused with their parameter") {
  serve(1_neuro);
  client c = node.connect();
  for (const auto& [query, field] : std::vector<std::pair<const char*, const char*>>{
           {"transactions?limit=0", "limit"},
           {"transactions?limit=101", "limit"},
           {"transactions?offset=-1", "offset"},
           {"transactions?type=gift", "type"},
           {"transactions?start_date=2026-13-01", "start_date"},
           {"transactions?start_date=2026-02-02&end_date=2026-02-01", "end_date"},
           {"rewards?start_date=yesterday", "start_date"},
           {"rewards?start_date=2026-01-02&end_date=2026-01-01", "start_date"},
           {"rewards?start_date=2020-01-01&end_date=2021-01-01", "start_date"}}) {
    const reply r = c.request("GET", std::string("/api/v1/wallet/") + query, bearer());
    INFO(std::string(query));
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.details.field") == field);
  }
  const auto json =
      c.request("GET", "/api/v1/wallet/rewards?start_date=2020-01-01&end_date=2020-12-31", bearer()).json();
  CHECK(at(json, "by_day").items.size() == 366);
  CHECK(text_at(json, "by_day.0.date") == "2020-01-01");
}

TEST_CASE_FIXTURE(node_fixture, "without a book the wallet is not ready") {
  start();
  for (const char* path : {"balance", "transactions", "stake", "rewards", "reward-rate"}) {
    const reply r = get(std::string("/api/v1/wallet/") + path);
    CHECK(r.status == 500);
    CHECK(text_at(r.json(), "error.details.reason") == "not_ready");
  }
}

TEST_CASE_FIXTURE(proof_fixture, "GET /proofs lists what the node has proven, newest first, and its sums") {
  const auto trained_proof = recorded(trained(0));
  const auto paid = done(trained_proof);
  next_minute();
  auto refused_proof = recorded(idle(), "uptime_overlaps");
  done(refused_proof);
  node_fixture node;
  node.services.book = reader();
  node.services.clock = clock;
  node.start();
  auto json = node.get("/api/v1/proofs").json();
  REQUIRE(at(json, "proofs").items.size() == 2);
  CHECK(text_at(json, "proofs.0.type") == "uptime");
  CHECK_FALSE(at(json, "proofs.0.verified").flag);
  CHECK(text_at(json, "proofs.0.reward") == "0.0");
  CHECK(text_at(json, "proofs.1.id") == paid.proof_id);
  CHECK(text_at(json, "proofs.1.type") == "training");
  CHECK(text_at(json, "proofs.1.layer") == "0");
  CHECK(text_at(json, "proofs.1.timestamp") == "2026-01-15T00:00:25Z");
  CHECK(at(json, "proofs.1.verified").flag);
  CHECK(text_at(json, "proofs.1.reward") == to_decimal(paid.reward));
  CHECK(text_at(json, "stats.total_submitted") == "2");
  CHECK(text_at(json, "stats.total_verified") == "1");
  CHECK(text_at(json, "stats.total_reward") == to_decimal(paid.reward));
  CHECK(text_at(json, "total") == "2");
  json = node.get("/api/v1/proofs?type=training&offset=1").json();
  CHECK(at(json, "proofs").items.empty());
  CHECK(text_at(json, "total") == "1");
  node.server.reset();
}
