#include "gateway/http/middlewares/client_address.hpp"
#include "tests/gateway/http/node_fixture.hpp"

#include <caf/send.hpp>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

struct protected_endpoint {
  const char* method;
  const char* path;
  http::scope needed;
};
constexpr protected_endpoint protected_endpoints[] = {
    {"POST", "/api/v1/inference", http::scope::inference},
    {"GET", "/api/v1/peers", http::scope::read},
    {"GET", "/api/v1/layers", http::scope::read},
    {"GET", "/api/v1/proofs", http::scope::read},
    {"GET", "/api/v1/config", http::scope::read},
    {"PATCH", "/api/v1/config", http::scope::admin},
    {"GET", "/api/v1/wallet/balance", http::scope::read},
    {"POST", "/api/v1/wallet/send", http::scope::wallet},
    {"GET", "/api/v1/wallet/transactions", http::scope::read},
    {"POST", "/api/v1/wallet/stake", http::scope::wallet},
    {"POST", "/api/v1/wallet/stake/add", http::scope::wallet},
    {"POST", "/api/v1/wallet/stake/extend", http::scope::wallet},
    {"POST", "/api/v1/wallet/unstake", http::scope::wallet},
    {"GET", "/api/v1/stake/info", http::scope::read},
    {"GET", "/api/v1/wallet/stake", http::scope::read},
    {"GET", "/api/v1/wallet/rewards", http::scope::read},
    {"GET", "/api/v1/rewards", http::scope::read},
    {"GET", "/api/v1/wallet/reward-rate", http::scope::read}};
constexpr const char* open_endpoints[] = {
    "/api/v1/status",       "/api/v1/metrics",        "/metrics",
    "/api/v1/network",      "/api/training/global",   "/api/v1/training/global",
    "/api/training/verify", "/api/v1/training/verify"};

std::string code_of_reply(const reply& r) {
  return std::to_string(r.status) + " " + text_at(r.json(), "error.code");
}

} // namespace

TEST_CASE_FIXTURE(node_fixture, "protected endpoints want a known token of their scope") {
  start();
  client c = connect();
  for (const auto& e : protected_endpoints) {
    INFO(std::string(e.method) << " " << std::string(e.path));
    const auto send = [&](const std::string& headers) { return c.request(e.method, e.path, headers, "{}"); };
    for (const std::string& headers :
         {std::string(), bearer(std::string(64, 'f')), std::string("Authorization: Basic abc\r\n"),
          std::string("Authorization: Bearer\r\n"), std::string("Authorization: Bearer short\r\n"),
          std::string("Authorization: " + wallet_token + "\r\n"), bearer("two words"), bearer() + bearer(),
          bearer(wallet_token + "a")}) {
      const reply r = send(headers);
      CHECK(code_of_reply(r) == "401 UNAUTHORIZED");
      CHECK(r.header("www-authenticate") == "Bearer");
      CHECK(r.body.find(wallet_token) == std::string::npos);
    }
    for (const auto& [token, has] :
         {std::pair{read_token, http::scope::read}, std::pair{inference_token, http::scope::inference}}) {
      const reply r = send(bearer(token));
      if (has == e.needed) {
        CHECK(r.status != 401);
        CHECK(r.status != 403);
      } else {
        CHECK(code_of_reply(r) == "403 FORBIDDEN");
        CHECK(text_at(r.json(), "error.details.scope") == http::to_string(e.needed));
      }
    }
    for (const std::string& headers :
         {bearer(), "authorization: bEARER   " + wallet_token + "  \r\n", bearer(std::string(64, 'A'))}) {
      const reply r = send(headers);
      CHECK(r.status != 401);
      CHECK(r.status != 403);
    }
  }
}

TEST_CASE_FIXTURE(node_fixture,
                  "optional endpoints work without a token and refuse a wrong one; health never looks") {
  start();
  client c = connect();
  for (const char* path : open_endpoints) {
    CHECK(c.request("GET", path).status == 200);
    CHECK(c.request("GET", path, bearer()).status == 200);
    CHECK(c.request("GET", path, bearer(inference_token)).status == 200);
    CHECK(code_of_reply(c.request("GET", path, bearer("wrong-token"))) == "401 UNAUTHORIZED");
  }
  CHECK(c.request("GET", "/api/v1/health", bearer("wrong-token")).status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "a token is known in all its forms") {
  // BIP39's all-zero mnemonic; its token is the first 32 bytes of the seed.
  const std::string words =
      "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
  const std::string hex = "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1";
  settings.rates.auth_failures = 2;
  services.tokens.push_back({kernels::sha256::of(std::string_view(hex)), http::all_scopes});
  services.tokens.push_back({kernels::sha256::of(std::string_view("one-word-secret")), http::all_scopes});
  start();
  client c = connect();
  CHECK(c.request("GET", "/api/v1/peers", bearer(hex)).status == 200);
  CHECK(c.request("GET", "/api/v1/peers", bearer("one-word-secret")).status == 200);
  // Spends the budget of guesses once, and is known from then on, also on other connections.
  for (int i = 0; i < 5; ++i)
    CHECK(get("/api/v1/peers", bearer(words)).status == 200);
  // A wrong checksum is no token at all, a right one of somebody else an unknown token.
  const std::string zoo = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";
  CHECK(c.request("GET", "/api/v1/peers", bearer(zoo)).status == 401);
  CHECK(c.request("GET", "/api/v1/peers", bearer(zoo)).status == 429);
  CHECK(c.request("GET", "/api/v1/peers", bearer(words)).status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "a public address without TLS withholds the scopes wallet and admin") {
  settings.host = "0.0.0.0";
  settings.trusted_proxies = {"127.0.0.0/8"};
  start();
  client c = connect();
  for (const auto& e : protected_endpoints) {
    const reply r = c.request(e.method, e.path, bearer(), "{}");
    if (e.needed == http::scope::wallet || e.needed == http::scope::admin) {
      CHECK(code_of_reply(r) == "403 FORBIDDEN");
      CHECK(text_at(r.json(), "error.details.reason") == "insecure_transport");
    } else {
      CHECK(r.status != 403);
    }
    CHECK(c.request(e.method, e.path, bearer() + "X-Forwarded-Proto: https\r\n", "{}").status != 403);
  }
}

TEST_CASE_FIXTURE(
    node_fixture,
    "plain HTTP on a public address can be allowed, and a stranger's word for TLS counts nothing") {
  settings.host = "0.0.0.0";
  SUBCASE("allowed") {
    settings.allow_plain_http = true;
    start();
    CHECK(post("/api/v1/wallet/unstake", "{}").status == 200);
  }
  SUBCASE("no trusted proxy") {
    settings.trusted_proxies = {"10.0.0.0/8"};
    start();
    CHECK(post("/api/v1/wallet/unstake", "{}", bearer() + "X-Forwarded-Proto: https\r\n").status == 403);
  }
}

TEST_CASE_FIXTURE(node_fixture, "every class has its own budget and says so in headers") {
  settings.rates = {3, 2, 2, 4, 30};
  start();
  client c = connect();
  const auto drain = [&](const char* method, const char* path, int limit,
                         std::optional<std::string_view> body) {
    INFO(std::string(path));
    for (int i = 0; i < limit; ++i) {
      const reply r = c.request(method, path, bearer(), body);
      CHECK(r.status != 429);
      CHECK(r.header("x-ratelimit-limit") == std::to_string(limit));
      CHECK(r.header("x-ratelimit-remaining") == std::to_string(limit - 1 - i));
      CHECK_FALSE(r.header("x-ratelimit-reset").empty());
    }
    for (int i = 0; i < 3; ++i) { // a refused request spends nothing
      const reply r = c.request(method, path, bearer(), body);
      CHECK(code_of_reply(r) == "429 RATE_LIMITED");
      CHECK(r.header("x-ratelimit-remaining") == "0");
      const std::string wait = r.header("retry-after");
      CHECK(wait == text_at(r.json(), "error.details.retry_after"));
      CHECK(wait.find_first_not_of("0123456789") == std::string::npos);
      CHECK(std::stoi(wait) >= 1);
      CHECK(std::stoi(wait) <= 60);
    }
  };
  drain("GET", "/api/v1/status", 3, std::nullopt);
  drain("POST", "/api/v1/inference", 2, "{");
  drain("POST", "/api/v1/wallet/unstake", 2, "{}");
  drain("GET", "/api/v1/health", 4, std::nullopt);
  // Another identity has another budget: the address, for requests without a token.
  CHECK(c.request("GET", "/api/v1/status").status == 200);
  limiter_clock->advance_s(61);
  CHECK(c.request("GET", "/api/v1/status", bearer()).status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "failed authentication spends its own budget, and known tokens still pass") {
  settings.rates = {100, 60, 10, 600, 3};
  start();
  client c = connect();
  for (int i = 0; i < 3; ++i) {
    const reply r = c.request("GET", "/api/v1/status", bearer("wrong-token"));
    CHECK(r.status == 401);
    CHECK(r.header("x-ratelimit-remaining") == "100"); // the class is not charged
  }
  const reply r = c.request("GET", "/api/v1/status", bearer("wrong-token"));
  CHECK(code_of_reply(r) == "429 RATE_LIMITED");
  CHECK_FALSE(r.header("retry-after").empty());
  CHECK(c.request("GET", "/api/v1/status", bearer()).status == 200);
  CHECK(c.request("GET", "/api/v1/status").status == 200);
  CHECK(c.request("GET", "/api/v1/health").status == 200);
}

TEST_CASE_FIXTURE(node_fixture,
                  "a token that is missing where one is needed is a failed authentication too") {
  settings.rates = {100, 60, 10, 600, 2};
  start();
  client c = connect();
  CHECK(code_of_reply(c.request("GET", "/api/v1/peers")) == "401 UNAUTHORIZED");
  CHECK(code_of_reply(c.request("POST", "/api/v1/inference", {}, "{}")) == "401 UNAUTHORIZED");
  CHECK(code_of_reply(c.request("GET", "/api/v1/peers")) == "429 RATE_LIMITED");
  CHECK(code_of_reply(c.request("GET", "/api/v1/peers", bearer("wrong-token"))) == "429 RATE_LIMITED");
  CHECK(c.request("GET", "/api/v1/status").status == 200); // needs none
  CHECK(c.request("GET", "/api/v1/peers", bearer()).status == 200);
  CHECK(code_of_reply(c.request("GET", "/api/v1/config", bearer(inference_token))) == "403 FORBIDDEN");
  limiter_clock->advance_s(61);
  CHECK(code_of_reply(c.request("GET", "/api/v1/peers")) == "401 UNAUTHORIZED");
}

TEST_CASE_FIXTURE(node_fixture, "the client's address is taken from trusted proxies only") {
  settings.rates = {1, 0, 0, 0, 0};
  SUBCASE("trusted") {
    settings.trusted_proxies = {"127.0.0.1"};
    start();
    const auto from = [&](const std::string& hops) {
      return get("/api/v1/status", "X-Forwarded-For: " + hops + "\r\n").status;
    };
    CHECK(from("203.0.113.1") == 200);
    CHECK(from("203.0.113.1") == 429);
    CHECK(from("9.9.9.9, 203.0.113.2") == 200); // only the last untrusted hop counts
    CHECK(from("8.8.8.8, 203.0.113.2, 127.0.0.1") == 429);
    CHECK(from("2001:db8::1") == 200);
    CHECK(from("2001:db8::2") == 429); // the same /64
    CHECK(from("2001:db8:0:1::1") == 200);
  }
  SUBCASE("not trusted") {
    start();
    CHECK(get("/api/v1/status", "X-Forwarded-For: 203.0.113.1\r\n").status == 200);
    CHECK(get("/api/v1/status", "X-Forwarded-For: 203.0.113.2\r\n").status == 429);
  }
}

TEST_CASE("addresses are compared as numbers, with networks and mapped IPv4") {
  const http::trusted_proxies list({"10.0.0.0/8", "192.168.1.5", "2001:db8::/33"});
  CHECK(list.contains("10.255.0.1"));
  CHECK(list.contains("::ffff:10.0.0.1"));
  CHECK(list.contains("192.168.1.5"));
  CHECK_FALSE(http::trusted_proxies({"192.168.1.5"}).contains("192.168.1.6"));
  CHECK(list.contains("2001:db8:7fff::1"));
  CHECK_FALSE(http::trusted_proxies({"2001:db8::/33"}).contains("2001:db8:8000::1"));
  CHECK_FALSE(list.contains("nonsense"));
  CHECK(http::budget_address("2001:db8::5:6:7:8") == "2001:db8::/64");
  CHECK(http::budget_address("203.0.113.7") == "203.0.113.7");
}

TEST_CASE_FIXTURE(node_fixture, "a dead rate limiter is an error of the node, not a free pass") {
  settings.rates.status = 5;
  start();
  caf::anon_send_exit(services.rate_limiter.get(), caf::exit_reason::kill);
  services.rate_limiter.set({});
  const reply r = get("/api/v1/status");
  CHECK(code_of_reply(r) == "500 INTERNAL_ERROR");
  CHECK(text_at(r.json(), "error.details.reason") == "not_ready");
  CHECK_FALSE(r.header("retry-after").empty());
}
