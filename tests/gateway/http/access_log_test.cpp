#include "gateway/config/logging.hpp"
#include "gateway/http/access_log.hpp"
#include "tests/gateway/http/node_fixture.hpp"

#include <algorithm>
#include <thread>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Sends the log into a list. The process's logger keeps the list for longer than the test.
struct captured_log {
  struct list {
    std::mutex guard;
    std::vector<std::string> lines;
  };
  std::shared_ptr<list> seen = std::make_shared<list>();

  explicit captured_log(const char* level = "INFO") {
    log_options how;
    how.level = level;
    how.to_console = [to = seen](std::string_view line) {
      const std::lock_guard hold(to->guard);
      to->lines.emplace_back(line);
    };
    REQUIRE(logging::start(how));
  }
  std::vector<std::string> with(std::string_view part) {
    const std::lock_guard hold(seen->guard);
    std::vector<std::string> found;
    std::copy_if(seen->lines.begin(), seen->lines.end(), std::back_inserter(found),
                 [&](const std::string& l) { return l.find(part) != std::string::npos; });
    return found;
  }
  bool wait_for(std::string_view part) {
    for (int i = 0; i < 500 && with(part).empty(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return !with(part).empty();
  }
};

} // namespace

TEST_CASE_FIXTURE(node_fixture, "every finished request is one line, without query, token or body") {
  captured_log log;
  settings.access_log = true;
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->token("private words", 0, std::nullopt);
    r.sink->done(finished(id, "private words"));
  };
  start();
  client c = connect();
  const reply ok = c.request("GET", "/api/v1/status?token=hidden-query", bearer() + "X-Request-Id: one\r\n");
  REQUIRE(log.wait_for("id=one "));
  const std::string line = log.with("id=one ").front();
  INFO(line);
  CHECK(line.find(
            " info access: request id=one peer=127.0.0.1 method=GET path=/api/v1/status status=200 bytes=" +
            std::to_string(ok.body.size()) + " ms=") != std::string::npos);
  const std::string prompt = R"({"prompt":"private words"})",
                    stream = R"({"prompt":"private words","stream":true})";
  c.request("POST", "/api/v1/inference", bearer() + "X-Request-Id: two\r\n", prompt);
  const reply events = c.request("POST", "/api/v1/inference", bearer() + "X-Request-Id: three\r\n", stream);
  c.request("GET", "/x%20y\"z", "X-Request-Id: four\r\n");
  c.request("GET", "/" + std::string(9000, 'p'), bearer("wrong-token") + "X-Request-Id: five\r\n");
  c.send("HEAD /metrics HTTP/1.1\r\nX-Request-Id: six\r\n\r\n");
  CHECK(c.receive(true).status == 400);
  REQUIRE(log.wait_for("id=six "));
  CHECK(log.with("id=two ").size() == 1);
  CHECK(log.with(" bytes=" + std::to_string(events.body.size()) + " ").size() == 1);
  CHECK(log.with("path=/x%20y%22z status=404").size() == 1);
  CHECK(log.with("id=five ").front().size() < 500);
  CHECK(log.with("method=HEAD path=/metrics status=400 bytes=0 ").size() == 1);
  CHECK(log.with("access: request").size() == 6);
  for (const char* secret : {"hidden-query", "private", "wrong-token"})
    CHECK(log.with(secret).empty());
  CHECK(log.with(wallet_token).empty());
}

TEST_CASE_FIXTURE(node_fixture,
                  "the access log names the client behind a trusted proxy, and can be turned off") {
  captured_log log;
  settings.access_log = true;
  settings.trusted_proxies = {"127.0.0.1"};
  start();
  get("/api/v1/status", "X-Forwarded-For: 203.0.113.9\r\nX-Request-Id: via\r\n");
  REQUIRE(log.wait_for("id=via "));
  CHECK(log.with("peer=203.0.113.9 ").size() == 1);
  server->set_access_log(false);
  get("/api/v1/status", "X-Request-Id: unseen\r\n");
  server->set_access_log(true);
  get("/api/v1/status", "X-Request-Id: seen\r\n");
  REQUIRE(log.wait_for("id=seen "));
  CHECK(log.with("id=unseen ").empty());
}

TEST_CASE_FIXTURE(node_fixture, "a client that left before its answer is marked in the access log") {
  captured_log log;
  settings.access_log = true;
  start();
  client c = connect();
  c.send("POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nX-Request-Id: left\r\n" + bearer() +
         "Content-Length: 28\r\n\r\n{\"prompt\":\"x\",\"stream\":true}");
  const generation_request r = scheduler->wait_for(0);
  c.reset();
  CHECK(scheduler->wait_cancelled(scheduler->id_of(0)));
  r.sink->done(finished(scheduler->id_of(0), ""));
  REQUIRE(log.wait_for("id=left "));
  CHECK(log.with("id=left ").front().find(" gone=true") != std::string::npos);
}

TEST_CASE("under load the access log writes so many lines a second and says how many it left out") {
  captured_log log;
  http::access_log out;
  http::access_record r;
  r.id = "x";
  for (int i = 0; i < 2500; ++i)
    out.note(r, 7);
  CHECK(log.with("access: request").size() == http::access_log::lines_per_s_max);
  out.note(r, 8);
  CHECK(log.with("access: left-out requests=1500").size() == 1);
  CHECK(log.with("access: request").size() == http::access_log::lines_per_s_max + 1);
}

TEST_CASE("at level WARN no access is logged") {
  captured_log log("WARN");
  http::access_log out;
  out.note({}, 1);
  CHECK(log.with("access").empty());
}
