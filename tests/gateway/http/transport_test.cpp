#include "tests/gateway/http/node_fixture.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <filesystem>
#include <thread>
#include <unistd.h>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

const std::string get_status_bytes = "GET /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n";

void check_refused(client& c, const char* reason) {
  const reply r = c.receive();
  INFO("body: " << r.body);
  CHECK(r.status == 400);
  CHECK(text_at(r.json(), "error.code") == "INVALID_REQUEST");
  CHECK(text_at(r.json(), "error.details.reason") == reason);
  CHECK(r.header("connection") == "close");
  CHECK(r.header("x-request-id").size() == 32);
  CHECK(c.closed_by_server());
}

/// A self-signed certificate in a folder of its own.
struct certificate {
  std::filesystem::path folder;
  certificate() {
    char name[] = "/tmp/neuroshard-tls-XXXXXX";
    folder = ::mkdtemp(name);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* x = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_sign(x, key, EVP_sha256());
    FILE* f = std::fopen((folder / "c.pem").c_str(), "w");
    PEM_write_X509(f, x);
    std::fclose(f);
    f = std::fopen((folder / "k.pem").c_str(), "w");
    PEM_write_PrivateKey(f, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
  }
  ~certificate() { std::filesystem::remove_all(folder); }
};

} // namespace

TEST_CASE_FIXTURE(node_fixture,
                  "bytes that are no HTTP request get a 400 envelope and the connection is closed") {
  start();
  const std::string host = "Host: x\r\n";
  for (const std::string& bad : {
           std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
           std::string("GET\r\n\r\n"),
           std::string("GET /api/v1/status\r\n\r\n"),
           "GET /api/v1/status HTTP/2.0\r\n" + host + "\r\n",
           "GET /api/v1/status HTTP/0.9\r\n" + host + "\r\n",
           "GET /api/v1/status http/1.1\r\n" + host + "\r\n",
           "GET  /api/v1/status HTTP/1.1\r\n" + host + "\r\n",
           "GET /a b HTTP/1.1\r\n" + host + "\r\n",
           "G\x01T / HTTP/1.1\r\n" + host + "\r\n",
           std::string("GET /\0 HTTP/1.1\r\n\r\n", 20),
           std::string("GET / HTTP/1.1\r\nHo st: x\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost : x\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\n: x\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nHost\r\n\r\n"),
           std::string("GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 26),
           std::string("GET /api/v1/status HTTP/1.1\r\n\r\n"), // without Host
           "GET /api/v1/status HTTP/1.1\r\n" + host + host + "\r\n",
           "GET /api/v1/status HTTP/1.0\r\n" + host + "Host: y\r\n\r\n",
           std::string("GET /api/v1/status HTTP/1.1\r\nHost: a, b\r\n\r\n"),
           std::string("GET /api/v1/status HTTP/1.1\r\nHost: a/b\r\n\r\n"),
           std::string("GET / HTTP/1.1\nHost: x\n\n"),
           "POST / HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: x\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 99999999999999999999999\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
       }) {
    INFO("request: " << bad);
    client c = connect();
    c.send(bad);
    check_refused(c, "malformed_http");
  }
  CHECK(get("/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "headers above 16 KiB and bodies above 1 MiB are refused with the limit") {
  start();
  {
    client c = connect();
    CHECK(c.request("GET", "/api/v1/status", "A: " + std::string(15'000, 'x') + "\r\n").status == 200);
  }
  for (const std::string& bad :
       {"GET /api/v1/status HTTP/1.1\r\nA: " + std::string(17'000, 'x') + "\r\n\r\n",
        "GET /" + std::string(17'000, 'x'),
        "GET /" + std::string(9'000, 'x') + " HTTP/1.1\r\nB: " + std::string(9'000, 'x') + "\r\n\r\n",
        "GET / HTTP/1.1\r\nA: " + std::string(200'000, 'x')}) {
    client c = connect();
    c.send(bad);
    const reply r = c.receive();
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.details.limit") == "16384");
    CHECK(c.closed_by_server());
  }
  std::string chunked =
      "POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() + "Transfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 20; ++i)
    chunked += "10000\r\n" + std::string(65536, 'x') + "\r\n";
  for (const std::string& bad :
       {"POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() + "Content-Length: 1048577\r\n\r\n",
        "POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() + "Content-Length: 2000000\r\n\r\n" +
            std::string(2'000'000, 'x'),
        chunked}) {
    client c = connect();
    c.send(bad);
    const reply r = c.receive();
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.details.limit") == "1048576");
  }
  const std::string largest = "{\"prompt\":\"" + std::string(1'048'576 - 13, 'x') + "\"}";
  REQUIRE(largest.size() == 1'048'576);
  const reply r = post("/api/v1/inference", largest);
  CHECK(text_at(r.json(), "error.details.field") == "prompt"); // read whole, and then found too long
}

TEST_CASE_FIXTURE(node_fixture, "Host may be empty, and absent in HTTP/1.0") {
  start();
  for (const char* good :
       {"GET /api/v1/status HTTP/1.1\r\nHost:\r\n\r\n", "GET /api/v1/status HTTP/1.0\r\n\r\n",
        "GET /api/v1/status HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n"}) {
    client c = connect();
    c.send(good);
    CHECK(c.receive().status == 200);
  }
}

TEST_CASE_FIXTURE(node_fixture,
                  "a bad request whose header is whole spends its budget and carries the usual headers") {
  settings.rates = {2, 2, 0, 0, 1};
  settings.cors_origins = {"https://here.example"};
  settings.limits.body_ms = 100;
  start();
  const auto answer = [&](const std::string& bytes, bool end = false) {
    client c = connect();
    c.send(bytes);
    if (end)
      c.shutdown_send();
    const reply r = c.receive();
    CHECK(r.header("connection") == "close");
    CHECK(c.closed_by_server());
    return r;
  };
  const std::string own = "Origin: https://here.example\r\nX-Request-Id: mine\r\n" + bearer();
  const std::string post = "POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + own;
  const auto check = [&](const reply& r, const char* reason, const char* left) {
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.details.reason") == reason);
    CHECK(r.header("x-request-id") == "mine");
    CHECK(r.header("access-control-allow-origin") == "https://here.example");
    CHECK(r.header("x-ratelimit-limit") == "2");
    CHECK(r.header("x-ratelimit-remaining") == left);
  };
  check(answer(post + "Content-Length: 10\r\n\r\nabc", true), "truncated", "1");
  check(answer(post + "Content-Length: 1048577\r\n\r\n"), "body_too_large", "0");
  reply r = answer(post + "Content-Length: 10\r\n\r\nabc", true);
  CHECK(r.status == 429);
  CHECK_FALSE(r.header("retry-after").empty());
  check(answer("GET /api/v1/status HTTP/1.1\r\n" + own + "\r\n"), "malformed_http", "1");
  check(answer("GET /api/v1/status HTTP/1.1\r\nHost: x\r\n" + own + "Content-Length: 10\r\n\r\nabc"),
        "timeout", "0");
  // A wrong token is one here too.
  const std::string wrong = "GET /api/v1/status HTTP/1.1\r\n" + bearer("wrong-token") + "\r\n";
  CHECK(answer(wrong).status == 400);
  CHECK(answer(wrong).status == 429);
  // Half a header belongs to no class.
  r = answer("GET /api/v1/status HTTP/1.1\r\n" + own + "A b: c\r\n\r\n");
  CHECK(r.status == 400);
  CHECK(r.header("x-request-id") == "mine");
  CHECK(r.header("access-control-allow-origin") == "https://here.example");
  CHECK_FALSE(r.has("x-ratelimit-limit"));
}

TEST_CASE_FIXTURE(node_fixture,
                  "requests arrive in any pieces, chunked or not, with empty lines between them") {
  start();
  client c = connect();
  const std::string body = R"({"amount": 5})";
  const std::string one = "\r\nPOST /api/v1/wallet/unstake HTTP/1.1\r\nHost: x\r\n" + bearer() +
                          "Transfer-Encoding: chunked\r\n\r\n4;ext=1\r\n" + body.substr(0, 4) + "\r\n9\r\n" +
                          body.substr(4) + "\r\n0\r\nTrailer: x\r\n\r\n";
  for (const char byte : one)
    c.send(std::string_view(&byte, 1));
  reply r = c.receive();
  CHECK(r.status == 200);
  CHECK(text_at(r.json(), "unstake.amount") == "5.0");
  c.send("POST /api/v1/wallet/unstake HTTP/1.1\r\nHost: x\r\n" + bearer() +
         "Expect: 100-continue\r\nContent-Length: 13\r\n\r\n");
  CHECK(c.receive().status == 100);
  c.send(body);
  CHECK(c.receive().status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "pipelined requests are answered in order, waiting ones before quick ones") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->done(finished(id, r.prompt));
  };
  start();
  client c = connect();
  std::string all;
  for (int i = 0; i < 50; ++i) {
    const std::string body = "{\"prompt\":\"p" + std::to_string(i) + "\"}";
    all += "POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body +
           "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nX-Request-Id: q" + std::to_string(i) + "\r\n\r\n";
  }
  std::thread writer([&] { c.send(all); });
  for (int i = 0; i < 50; ++i) {
    CHECK(text_at(c.receive().json(), "text") == "p" + std::to_string(i));
    CHECK(c.receive().header("x-request-id") == "q" + std::to_string(i));
  }
  writer.join();
}

TEST_CASE_FIXTURE(node_fixture,
                  "a client that pipelines without reading is held back, not buffered without end") {
  settings.limits.write_ms = 300;
  start();
  client c = connect();
  std::string many;
  for (int i = 0; i < 20'000; ++i)
    many += get_status_bytes;
  std::thread writer([&] { c.send(many); });
  // The server gives it up when it does not read for write_ms; until then it holds only what its buffers may.
  writer.join();
  CHECK(get("/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "connections are kept or closed as the versions of HTTP have it") {
  start();
  {
    client c = connect();
    CHECK_FALSE(c.request("GET", "/api/v1/status").has("connection"));
    CHECK(c.request("GET", "/api/v1/status", "Connection: close\r\n").header("connection") == "close");
    CHECK(c.closed_by_server());
  }
  {
    client c = connect();
    c.send("GET /api/v1/status HTTP/1.0\r\n\r\n");
    CHECK(c.receive().header("connection") == "close");
    CHECK(c.closed_by_server());
  }
  client c = connect();
  c.send("GET /api/v1/status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  CHECK(c.receive().header("connection") == "keep-alive");
  CHECK(c.request("GET", "/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "a client that ends its side early still gets its answers") {
  start();
  client c = connect();
  c.send(get_status_bytes + get_status_bytes);
  c.shutdown_send();
  CHECK(c.receive().status == 200);
  CHECK(c.receive().status == 200);
  CHECK(c.closed_by_server());
  client half = connect();
  half.send("GET /api/v1/status HTTP/1.1\r\nHo");
  half.shutdown_send();
  check_refused(half, "truncated");
  client body = connect();
  body.send("POST /api/v1/inference HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
  body.shutdown_send();
  check_refused(body, "truncated");
}

TEST_CASE_FIXTURE(node_fixture, "slow headers, slow bodies and silent connections are ended") {
  settings.limits.header_ms = 150;
  settings.limits.body_ms = 150;
  settings.limits.idle_ms = 150;
  start();
  client header = connect(), body = connect(), silent = connect(), idle = connect(), drip = connect();
  header.send("GET /api/v1/status HTTP/1.1\r\nHost: x\r\n");
  body.send("POST /api/v1/wallet/unstake HTTP/1.1\r\nHost: x\r\n" + bearer() +
            "Content-Length: 100\r\n\r\n{");
  CHECK(idle.request("GET", "/api/v1/status").status == 200);
  std::thread slow([&] {
    for (int i = 0; i < 40; ++i) {
      drip.send("X");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  check_refused(header, "timeout");
  check_refused(body, "timeout");
  CHECK(silent.closed_by_server());
  CHECK(idle.closed_by_server());
  slow.join();
  CHECK(drip.receive_all().has_value());
}

TEST_CASE_FIXTURE(node_fixture, "connections beyond the limit are told so") {
  settings.limits.connections = 3;
  start();
  std::vector<std::unique_ptr<client>> open;
  for (int i = 0; i < 3; ++i) {
    open.push_back(std::make_unique<client>(server->port()));
    CHECK(open.back()->request("GET", "/api/v1/status").status == 200);
  }
  client extra = connect();
  const reply r = extra.receive();
  CHECK(r.status == 500);
  CHECK(text_at(r.json(), "error.details.reason") == "overloaded");
  CHECK(r.header("retry-after") == "1");
  CHECK(r.header("x-request-id").size() == 32);
  open.clear();
  for (int i = 0; i < 100 && services.counters->http_connections.load() > 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  extra.close();
  CHECK(get("/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "a port in use is a status that says so") {
  start();
  http::server_settings same = settings;
  same.port = server->port();
  http::server second(same, services);
  const caf::error why = second.start();
  REQUIRE(why);
  CHECK(code_of(why) == errc::unavailable);
  CHECK(problem_of(why).reason == "port_in_use");
  same.host = "192.0.2.1"; // not an address of this machine
  http::server third(same, services);
  CHECK(problem_of(third.start()).reason == "bind_failed");
  CHECK(get("/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture,
                  "a draining server refuses work, shows its state, and waits for what is in flight") {
  start();
  client running = connect();
  const std::string body = R"({"prompt":"x"})";
  running.send("POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() +
               "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  const generation_request r = scheduler->wait_for(0);
  server->drain();
  const reply refused = post("/api/v1/inference", body);
  CHECK(refused.status == 500);
  CHECK(text_at(refused.json(), "error.details.reason") == "draining");
  CHECK_FALSE(refused.header("retry-after").empty());
  CHECK(post("/api/v1/wallet/send", "{}").status == 500);
  CHECK(get("/api/v1/status").status == 200);
  CHECK(server->in_flight() == 1);
  std::thread finishing([&] { r.sink->done(finished(scheduler->id_of(0), "last words")); });
  CHECK(server->stop(5000));
  finishing.join();
  CHECK(text_at(running.receive().json(), "text") == "last words");
  CHECK(running.closed_by_server());
}

TEST_CASE_FIXTURE(node_fixture, "a server that has no more time cuts off what is in flight") {
  start();
  client running = connect();
  running.send("POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + bearer() +
               "Content-Length: 14\r\n\r\n{\"prompt\":\"x\"}");
  const generation_request r = scheduler->wait_for(0);
  CHECK_FALSE(server->stop(50));
  CHECK(running.closed_by_server());
  r.sink->token("late", 0, std::nullopt); // after the end: goes nowhere
  r.sink->done(finished(scheduler->id_of(0), "late"));
}

TEST_CASE_FIXTURE(node_fixture, "TLS serves the same API and counts as secure") {
  const certificate files;
  settings.host = "0.0.0.0";
  settings.tls_cert = (files.folder / "c.pem").string();
  settings.tls_key = (files.folder / "k.pem").string();
  start();
  client c = connect(true);
  CHECK(c.request("GET", "/api/v1/status").status == 200);
  CHECK(c.request("POST", "/api/v1/wallet/unstake", bearer(), "{}").status == 200); // not withheld
  std::string three;
  for (int i = 0; i < 3; ++i)
    three += get_status_bytes;
  c.send(three);
  for (int i = 0; i < 3; ++i)
    CHECK(c.receive().status == 200);
  client plain = connect();
  plain.send(get_status_bytes);
  CHECK(plain.receive_all()); // no HTTP without TLS
  client bad = connect(true);
  bad.send("nonsense\r\n\r\n");
  CHECK(bad.receive().status == 400);
  CHECK(c.request("GET", "/api/v1/status", "Connection: close\r\n").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "TLS files that cannot be used are named") {
  settings.tls_cert = "/nonexistent/cert.pem";
  settings.tls_key = "/nonexistent/key.pem";
  http::server broken(settings, services);
  const caf::error why = broken.start();
  CHECK(code_of(why) == errc::invalid_request);
  CHECK(problem_of(why).message.find("/nonexistent/cert.pem") != std::string::npos);
}

TEST_CASE_FIXTURE(node_fixture, "64 connections at once are all served") {
  start();
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 64; ++t)
    threads.emplace_back([&] {
      client c = connect();
      for (int i = 0; i < 20; ++i)
        good += c.request("GET", "/api/v1/status", bearer()).status == 200;
    });
  for (auto& t : threads)
    t.join();
  CHECK(good == 64 * 20);
}
