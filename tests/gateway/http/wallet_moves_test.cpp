#include "tests/gateway/http/node_fixture.hpp"

#include <caf/send.hpp>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

const std::string to = "0x" + std::string(40, 'B');

std::string post_bytes(const std::string& path, const std::string& body,
                       const std::string& headers = bearer()) {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

} // namespace

TEST_CASE_FIXTURE(node_fixture, "POST /wallet/send moves exactly what the text says and shows every field") {
  start();
  const reply r = post("/api/v1/wallet/send",
                       "{\"to\":\"" + to + "\",\"amount\":0.100000000000000001,\"memo\":\"thanks\"}");
  CHECK(r.status == 200);
  CHECK(r.body.find("\"amount\":0.100000000000000001,\"fee\":0.000100000000000001,") != std::string::npos);
  const auto json = r.json();
  CHECK(text_at(json, "transaction_id") == std::string(64, '1'));
  CHECK(text_at(json, "from") == "0x" + std::string(40, 'a'));
  CHECK(text_at(json, "to") == to);
  CHECK(text_at(json, "memo") == "thanks");
  CHECK(text_at(json, "status") == "confirmed");
  CHECK(text_at(json, "timestamp") == "2027-01-15T08:00:00Z");
  CHECK(post("/api/v1/wallet/send", "{\"to\":\"" + to + "\",\"amount\":\"250\",\"memo\":null}").status ==
        200);
  const std::lock_guard hold(ledger->guard);
  REQUIRE(ledger->sends.size() == 2);
  CHECK(to_decimal(ledger->sends[1].amount) == "250.0");
  CHECK(ledger->sends[1].memo.empty());
  CHECK(ledger->sends[0].mark->path == "/api/v1/wallet/send");
  CHECK(ledger->sends[0].mark->key.empty());
  CHECK(ledger->sends[0].mark->token == services.tokens[0].digest);
  CHECK(ledger->sends[0].mark->body != ledger->sends[1].mark->body);
}

TEST_CASE_FIXTURE(node_fixture, "bad amounts, addresses, memos and durations never reach the ledger") {
  start();
  client c = connect();
  const std::string recipient = "\"to\":\"" + to + "\"";
  for (const auto& [path, body, field] : std::vector<std::tuple<const char*, std::string, const char*>>{
           {"send", "{" + recipient + "}", "amount"},
           {"send", "{\"amount\":1}", "to"},
           {"send", "{\"to\":\"\",\"amount\":1}", "to"},
           {"send", "{\"to\":7,\"amount\":1}", "to"},
           {"send", "{" + recipient + ",\"amount\":0}", "amount"},
           {"send", "{" + recipient + ",\"amount\":-0}", "amount"},
           {"send", "{" + recipient + ",\"amount\":-1}", "amount"},
           {"send", "{" + recipient + ",\"amount\":\"-1\"}", "amount"},
           {"send", "{" + recipient + ",\"amount\":\"0.1000000000000000001\"}", "amount"},
           {"send", "{" + recipient + ",\"amount\":1e-30}", "amount"},
           {"send", "{" + recipient + ",\"amount\":1e41}", "amount"},
           {"send", "{" + recipient + ",\"amount\":1e39}", "amount"},
           {"send", "{" + recipient + ",\"amount\":\"1 \"}", "amount"},
           {"send", "{" + recipient + ",\"amount\":true}", "amount"},
           {"send", "{" + recipient + ",\"amount\":[1]}", "amount"},
           {"send", "{" + recipient + ",\"amount\":1,\"memo\":\"" + std::string(257, 'm') + "\"}", "memo"},
           {"send", "{" + recipient + ",\"amount\":1,\"memo\":5}", "memo"},
           {"stake", "{}", "amount"},
           {"stake", "{\"amount\":1000,\"duration_days\":6}", "duration_days"},
           {"stake", "{\"amount\":1000,\"duration_days\":366}", "duration_days"},
           {"stake", "{\"amount\":1000,\"duration_days\":7.5}", "duration_days"},
           {"stake/add", "{}", "amount"},
           {"stake/extend", "{}", "additional_days"},
           {"stake/extend", "{\"additional_days\":0}", "additional_days"},
           {"unstake", "{\"amount\":0}", "amount"}}) {
    const reply r = c.request("POST", std::string("/api/v1/wallet/") + path, bearer(), body);
    INFO("body: " << body << " answer: " << r.body);
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.code") == "INVALID_REQUEST");
    CHECK(text_at(r.json(), "error.details.field") == field);
  }
  for (const char* path : {"send", "stake", "stake/add", "stake/extend", "unstake"})
    for (const char* body : {"[]", "{", "{\"amount\":1,\"amount\":2}", "null"})
      CHECK(c.request("POST", std::string("/api/v1/wallet/") + path, bearer(), body).status == 400);
  const std::lock_guard hold(ledger->guard);
  CHECK(ledger->sends.empty());
  CHECK(ledger->stakes.empty());
  CHECK(ledger->unstakes.empty());
}

TEST_CASE_FIXTURE(node_fixture, "staking, adding, extending and unstaking answer as specified") {
  start();
  reply r = post("/api/v1/wallet/stake", R"({"amount":1500})");
  CHECK(r.status == 200);
  CHECK(
      r.body ==
      R"({"success":true,"stake":{"amount":1500.0,"duration_days":30,"start_date":"2024-10-04",)"
      R"("unlock_date":"2024-11-03","multiplier":1.132193},"new_balance":{"available":0.5,"staked":1500.0}})");
  CHECK(post("/api/v1/wallet/stake", R"({"amount":1e3,"duration_days":365.0})").status == 200);
  CHECK(post("/api/v1/wallet/stake/add", R"({"amount":5})").status == 200);
  CHECK(post("/api/v1/wallet/stake/extend", R"({"additional_days":30})").status == 200);
  r = post("/api/v1/wallet/unstake", "");
  CHECK(r.body ==
        R"({"success":true,"unstake":{"amount":1500.0,"cooldown_days":7,"available_date":"2024-10-11"},)"
        R"("remaining_stake":0.0})");
  CHECK(post("/api/v1/wallet/unstake", R"({"amount":null})").status == 200);
  CHECK(text_at(post("/api/v1/wallet/unstake", R"({"amount":5})").json(), "unstake.amount") == "5.0");
  const std::lock_guard hold(ledger->guard);
  CHECK(ledger->stakes[0].duration_days == 0); // the ledger's default
  CHECK(ledger->stakes[1].duration_days == 365);
  CHECK(ledger->extensions[0].additional_days == 30);
  CHECK_FALSE(ledger->unstakes[0].amount);
  CHECK_FALSE(ledger->unstakes[1].amount);
  CHECK(ledger->unstakes[2].amount);
}

TEST_CASE_FIXTURE(node_fixture, "refusals of the ledger keep their exact details") {
  start();
  problem what;
  what.message = "Wallet balance 7.5 NEURO is less than required 20.02 NEURO";
  what.details = {{"required", *mul_ratio(neuro_amount{atto_per_neuro}, 2002, 100)},
                  {"available", *mul_ratio(neuro_amount{atto_per_neuro}, 75, 10)}};
  ledger->refuse_with = refuse(errc::insufficient_balance, what);
  const std::string body = "{\"to\":\"" + to + "\",\"amount\":20}";
  const reply r = post("/api/v1/wallet/send", body);
  CHECK(r.status == 402);
  CHECK(
      r.body ==
      R"({"error":{"code":"INSUFFICIENT_BALANCE","message":"Wallet balance 7.5 NEURO is less than required )"
      R"(20.02 NEURO","details":{"required":20.02,"available":7.5,"balance":7.5}}})");
  {
    const std::lock_guard hold(ledger->guard);
    problem locked;
    locked.message = "locked";
    locked.field = "amount";
    locked.reason = "stake_locked";
    locked.details = {{"unlock_date", std::string("2027-02-01")}};
    ledger->refuse_with = refuse(errc::invalid_request, locked);
  }
  const auto json = post("/api/v1/wallet/unstake", "{}").json();
  CHECK(text_at(json, "error.details.reason") == "stake_locked");
  CHECK(text_at(json, "error.details.unlock_date") == "2027-02-01");
  services.ledger.set({});
  CHECK(text_at(post("/api/v1/wallet/send", body).json(), "error.details.reason") == "not_ready");
}

TEST_CASE_FIXTURE(node_fixture, "the ledger learns which responses have reached their client") {
  settings.limits.delivered_ms = 100;
  settings.limits.idle_ms = 60'000;
  start();
  const std::string path = "/api/v1/wallet/unstake";
  {
    client c = connect(); // a further request on the connection
    CHECK(c.request("POST", path, bearer(), "{}").status == 200);
    CHECK(c.request("GET", "/api/v1/status").status == 200);
    CHECK(ledger->wait_delivered(1));
  }
  {
    client c = connect(); // an orderly close
    CHECK(c.request("POST", path, bearer(), "{}").status == 200);
    c.close();
    CHECK(ledger->wait_delivered(2));
  }
  {
    client c = connect(); // silence without error
    CHECK(c.request("POST", path, bearer(), "{}").status == 200);
    CHECK(ledger->wait_delivered(3));
  }
  {
    client c = connect(); // the last response of a connection
    CHECK(c.request("POST", path, bearer() + "Connection: close\r\n", "{}").status == 200);
    c.close();
    CHECK(ledger->wait_delivered(4));
  }
}

TEST_CASE_FIXTURE(node_fixture, "a response to a client that has gone is not delivered") {
  start();
  const std::string path = "/api/v1/wallet/unstake";
  {
    client c = connect(); // its end of stream is there before the response is written
    c.send_last(post_bytes(path, "{}") + post_bytes(path, "{}"));
    CHECK(c.receive().status == 200);
    CHECK(c.receive().status == 200);
  }
  client c = connect();
  CHECK(c.request("POST", path, bearer(), "{}").status == 200);
  c.reset();
  client later = connect();
  CHECK(later.request("POST", path, bearer(), "{}").status == 200);
  CHECK(later.request("GET", "/api/v1/status").status == 200);
  REQUIRE(ledger->wait_delivered(4));
  const std::lock_guard hold(ledger->guard);
  CHECK(ledger->delivered == std::vector<int64_t>{4});
}

TEST_CASE_FIXTURE(node_fixture,
                  "the key of a wallet request goes to the ledger; a malformed one is refused") {
  start();
  CHECK(post("/api/v1/wallet/unstake", "{}", bearer() + "Idempotency-Key: a key ~\r\n").status == 200);
  CHECK(post("/api/v1/wallet/unstake", "{}", bearer() + "Idempotency-Key: a\tb\r\n").status == 400);
  const std::lock_guard hold(ledger->guard);
  REQUIRE(ledger->unstakes.size() == 1);
  CHECK(ledger->unstakes[0].mark->key == "a key ~");
}
