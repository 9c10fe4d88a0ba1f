#include "tests/gateway/http/node_fixture.hpp"

#include <caf/send.hpp>

#include <atomic>
#include <future>
#include <thread>

using namespace neuroshard;
using namespace neuroshard::test;
using kind = http::json_value::kind;

namespace {

std::string inference_bytes(const std::string& body, const std::string& headers = bearer()) {
  return "POST /api/v1/inference HTTP/1.1\r\nHost: x\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

const std::string simple = R"({"prompt":"Hello"})";
const std::string streamed = R"({"prompt":"Hello","stream":true})";

/// The JSON of each `data: ` line.
std::vector<http::json_value> frames_of(const std::string& body) {
  std::vector<http::json_value> frames;
  size_t at = 0;
  while (at < body.size()) {
    const size_t end = body.find("\n\n", at);
    if (end == std::string::npos)
      break;
    const std::string frame = body.substr(at, end - at);
    at = end + 2;
    if (frame[0] == ':')
      continue;
    CHECK(frame.rfind("data: ", 0) == 0);
    CHECK(frame.find('\n') == std::string::npos);
    auto json = http::parse_json(std::string_view(frame).substr(6));
    REQUIRE(json);
    frames.push_back(std::move(*json));
  }
  return frames;
}

caf::error failure(errc code, std::string message,
                   std::vector<std::pair<std::string, detail_value>> details = {}) {
  problem what;
  what.message = std::move(message);
  what.details = std::move(details);
  return refuse(code, std::move(what));
}

} // namespace

TEST_CASE_FIXTURE(node_fixture,
                  "a whole generation answers with every field, in the order of the specification") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->token("a", 0, std::nullopt);
    r.sink->done(finished(id, "caf\xc3\xa9 \"x\""));
  };
  start();
  const reply r = post("/api/v1/inference", simple);
  CHECK(r.status == 200);
  const std::string id = scheduler->id_of(0), hash(64, 'e');
  CHECK(r.body ==
        "{\"id\":\"" + id +
            "\",\"text\":\"caf\xc3\xa9 \\\"x\\\"\",\"tokens_generated\":156,\"finish_reason\":\"stop\","
            "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":156,\"total_tokens\":168},"
            "\"cost\":{\"amount\":0.0168,\"currency\":\"NEURO\"},"
            "\"timing\":{\"queue_ms\":1.5,\"inference_ms\":100.25,\"total_ms\":101.75},"
            "\"model_hash\":\"" +
            hash + "\",\"seed\":18446744073709551615}");
  const generation_request sent = scheduler->wait_for(0);
  CHECK(sent.prompt == "Hello");
  CHECK(sent.max_tokens == 100);
  CHECK(sent.temperature == 1.0f);
  CHECK(sent.top_p == 1.0f);
  CHECK(sent.top_k == 50);
  CHECK(sent.stop.empty());
  CHECK_FALSE(sent.seed);
  CHECK_FALSE(sent.logprobs);
}

TEST_CASE_FIXTURE(node_fixture, "all fields of a request arrive, in whatever way they are written") {
  scheduler->run = [](const generation_request& r, const std::string& id) { r.sink->done(finished(id, "")); };
  start();
  CHECK(post("/api/v1/inference",
             R"({"prompt":"\u0000\u00e9","max_tokens":2047.0,"temperature":-0,"top_p":0.5,"top_k":1000000000,
                 "stop":["a","b"],"stream":null,"seed":18446744073709551615,"logprobs":true,"unknown":{"x":[1]}})")
            .status == 200);
  const generation_request sent = scheduler->wait_for(0);
  CHECK(sent.prompt == std::string("\0\xc3\xa9", 3));
  CHECK(sent.max_tokens == 2047);
  CHECK(sent.temperature == 0);
  CHECK(sent.top_k == 1'000'000'000);
  CHECK(sent.stop == std::vector<std::string>{"a", "b"});
  CHECK(sent.seed == UINT64_MAX);
  CHECK(sent.logprobs);
}

TEST_CASE_FIXTURE(node_fixture, "a top_k above any vocabulary is clamped, whatever its size") {
  scheduler->run = [](const generation_request& r, const std::string& id) { r.sink->done(finished(id, "")); };
  start();
  size_t asked = 0;
  for (const std::string& top_k :
       {std::string("2147483648"), std::string("1e30"), std::string("1e99"), std::string("12.5e300"),
        std::string(60, '7'), std::string(60, '7') + ".0"}) {
    INFO("top_k: " << top_k);
    CHECK(post("/api/v1/inference", R"({"prompt":"x","top_k":)" + top_k + "}").status == 200);
    CHECK(scheduler->wait_for(asked++).top_k == INT32_MAX);
  }
  for (const std::string& top_k : {std::string("-1e99"), std::string("-") + std::string(60, '7'),
                                   std::string("1e-99"), std::string(60, '7') + ".5"}) {
    INFO("top_k: " << top_k);
    const reply r = post("/api/v1/inference", R"({"prompt":"x","top_k":)" + top_k + "}");
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.details.field") == "top_k");
  }
  CHECK(scheduler->count() == asked);
}

TEST_CASE_FIXTURE(node_fixture, "a bad inference request names its field and never reaches the scheduler") {
  start();
  client c = connect();
  std::string deep, many = "[";
  for (int i = 0; i < 10'000; ++i)
    deep += "[";
  for (int i = 0; i < 17; ++i)
    many += std::string(i ? "," : "") + "\"x\"";
  many += "]";
  const std::string long_stop = "[\"" + std::string(129, 's') + "\"]";
  for (const auto& [body, field] : std::vector<std::pair<std::string, std::string>>{
           {R"({})", "prompt"},
           {R"({"prompt":null})", "prompt"},
           {R"({"prompt":""})", "prompt"},
           {R"({"prompt":5})", "prompt"},
           {"{\"prompt\":\"" + std::string(256 * 1024 + 1, 'p') + "\"}", "prompt"},
           {R"({"prompt":"x","max_tokens":0})", "max_tokens"},
           {R"({"prompt":"x","max_tokens":-0})", "max_tokens"},
           {R"({"prompt":"x","max_tokens":2048})", "max_tokens"},
           {R"({"prompt":"x","max_tokens":1000000000})", "max_tokens"},
           {R"({"prompt":"x","max_tokens":1.5})", "max_tokens"},
           {R"({"prompt":"x","max_tokens":"5"})", "max_tokens"},
           {R"({"prompt":"x","temperature":2.1})", "temperature"},
           {R"({"prompt":"x","temperature":-0.1})", "temperature"},
           {R"({"prompt":"x","top_p":0})", "top_p"},
           {R"({"prompt":"x","top_p":1.01})", "top_p"},
           {R"({"prompt":"x","top_k":-1})", "top_k"},
           {R"({"prompt":"x","stop":"x"})", "stop"},
           {R"({"prompt":"x","stop":[""]})", "stop.0"},
           {R"({"prompt":"x","stop":["a",1]})", "stop.1"},
           {"{\"prompt\":\"x\",\"stop\":" + many + "}", "stop"},
           {"{\"prompt\":\"x\",\"stop\":" + long_stop + "}", "stop.0"},
           {R"({"prompt":"x","stream":1})", "stream"},
           {R"({"prompt":"x","seed":-1})", "seed"},
           {R"({"prompt":"x","seed":18446744073709551616})", "seed"},
           {R"({"prompt":"x","logprobs":"yes"})", "logprobs"},
           {R"({"prompt":"x","prompt":"y"})", ""},
           {R"({"prompt":"x"} x)", ""},
           {R"({"prompt":"x","temperature":1e400})", ""},
           {R"({"prompt":"x","temperature":NaN})", ""},
           {"{\"prompt\":\"\xff\"}", ""},
           {"{\"prompt\":" + deep, ""},
           {R"(["prompt"])", ""},
           {"", ""},
       }) {
    const reply r = c.request("POST", "/api/v1/inference", bearer(), body);
    INFO("body: " << body.substr(0, 80) << " answer: " << r.body);
    CHECK(r.status == 400);
    CHECK(text_at(r.json(), "error.code") == "INVALID_REQUEST");
    if (!field.empty())
      CHECK(text_at(r.json(), "error.details.field") == field);
  }
  CHECK(scheduler->count() == 0);
  const reply range = c.request("POST", "/api/v1/inference", bearer(), R"({"prompt":"x","max_tokens":0})");
  CHECK(text_at(range.json(), "error.details.min") == "1");
  CHECK(text_at(range.json(), "error.details.max") == "2047");
}

TEST_CASE_FIXTURE(node_fixture, "every refusal of the scheduler has its published form, streaming or not") {
  std::optional<caf::error> why;
  scheduler->admit = [&](const generation_request&,
                         const std::string&) -> caf::expected<generation_admitted> { return *why; };
  start();
  client c = connect();
  const neuro_amount required = *mul_ratio(neuro_amount{atto_per_neuro}, 2002, 100);
  const neuro_amount available = *mul_ratio(neuro_amount{atto_per_neuro}, 75, 10);
  struct expectation {
    caf::error why;
    int status;
    const char* code;
    const char* reason;
    bool retry;
  };
  for (const expectation& e : std::vector<expectation>{
           {failure(errc::overloaded, "full"), 500, "INTERNAL_ERROR", "overloaded", true},
           {failure(errc::not_ready, "loading"), 500, "INTERNAL_ERROR", "not_ready", true},
           {failure(errc::draining, "stopping"), 500, "INTERNAL_ERROR", "draining", true},
           {failure(errc::no_route, "layer 3"), 500, "INTERNAL_ERROR", "no_route", false},
           {failure(errc::timeout, "120 s"), 500, "INTERNAL_ERROR", "timeout", false},
           {failure(errc::internal, "device"), 500, "INTERNAL_ERROR", "internal", false},
           {failure(errc::storage, "disk"), 500, "INTERNAL_ERROR", "internal", false},
           {failure(errc::insufficient_balance, "poor", {{"required", required}, {"available", available}}),
            402, "INSUFFICIENT_BALANCE", "", false},
           {failure(errc::invalid_request, "long",
                    {{"limit", int64_t{2048}}, {"prompt_tokens", int64_t{3000}}}),
            400, "INVALID_REQUEST", "", false},
       })
    for (const std::string& body : {simple, streamed}) {
      why = e.why;
      const reply r = c.request("POST", "/api/v1/inference", bearer(), body);
      INFO("answer: " << r.body);
      CHECK(r.status == e.status);
      const auto json = r.json();
      CHECK(text_at(json, "error.code") == e.code);
      if (e.status == 500) {
        CHECK(text_at(json, "error.details.reason") == e.reason);
        CHECK(text_at(json, "error.details.request_id") == r.header("x-request-id"));
      }
      CHECK(r.has("retry-after") == e.retry);
      if (e.status == 402)
        CHECK(r.body.find(R"("required":20.02,"available":7.5,"balance":7.5)") != std::string::npos);
      if (e.status == 400)
        CHECK(text_at(json, "error.details.limit") == "2048");
    }
}

TEST_CASE_FIXTURE(node_fixture,
                  "without a scheduler inference is not ready, and one that dies is an error at once") {
  const auto alive = services.scheduler.get();
  services.scheduler.set({});
  start();
  reply r = post("/api/v1/inference", simple);
  CHECK(r.status == 500);
  CHECK(text_at(r.json(), "error.details.reason") == "not_ready");
  services.scheduler.set(alive);
  caf::anon_send_exit(alive, caf::exit_reason::kill);
  r = post("/api/v1/inference", simple);
  CHECK(r.status == 500);
  CHECK(text_at(r.json(), "error.details.reason") == "not_ready");
}

TEST_CASE_FIXTURE(node_fixture, "a failure before the first token is a 500, one after it keeps the text") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    generation_result result = finished(id, r.prompt == "late" ? "some text" : "");
    result.finish_reason = "error";
    result.failure = failure(errc::no_route, "Layer 3 is gone.");
    if (r.prompt != "late")
      result.completion_tokens = 0;
    r.sink->done(result);
  };
  start();
  const reply early = post("/api/v1/inference", simple);
  CHECK(early.status == 500);
  CHECK(text_at(early.json(), "error.details.reason") == "no_route");
  const reply late = post("/api/v1/inference", R"({"prompt":"late"})");
  CHECK(late.status == 200);
  CHECK(text_at(late.json(), "finish_reason") == "error");
  CHECK(text_at(late.json(), "text") == "some text");
  CHECK(text_at(late.json(), "error.code") == "INTERNAL_ERROR");
}

TEST_CASE_FIXTURE(node_fixture, "a stream has a frame per token and ends with [DONE]") {
  start();
  client c = connect();
  c.send(inference_bytes(R"({"prompt":"Hello","stream":true,"logprobs":true})") + inference_bytes(simple));
  const generation_request r = scheduler->wait_for(0);
  r.sink->token("Hel\nlo", 0, -0.5);
  const std::string head = c.receive_until("\r\n\r\n");
  CHECK(head.rfind("HTTP/1.1 200 OK\r\n", 0) == 0);
  for (const char* line : {"Content-Type: text/event-stream\r\n", "Cache-Control: no-store\r\n",
                           "X-Accel-Buffering: no\r\n", "Transfer-Encoding: chunked\r\n", "X-Request-Id: "})
    CHECK(head.find(line) != std::string::npos);
  CHECK(c.receive_until("\n\n\r\n").find("data: {\"token\":\"Hel\\nlo\",\"index\":0,\"logprob\":-0.5}\n\n") !=
        std::string::npos);
  r.sink->token("[DONE]", 1, -1.0);
  r.sink->token("[DONE]!", 2, -1.0);
  r.sink->done(finished(scheduler->id_of(0), "Hello"));
  const std::string rest = c.receive_until("0\r\n\r\n");
  for (const char* frame : {R"(data: {"token":"[DO","index":1,"logprob":-1.0})",
                            R"(data: {"token":"NE]","index":2,"logprob":0.0})",
                            R"(data: {"token":"[DONE]!","index":3,"logprob":-1.0})",
                            R"(data: {"token":"[DONE]","finish_reason":"stop","id":"inf_)",
                            R"("usage":{"prompt_tokens":12,"completion_tokens":156,"total_tokens":168})",
                            R"("cost":{"amount":0.0168,"currency":"NEURO"})", R"("total_ms":101.75)"})
    CHECK(rest.find(frame) != std::string::npos);
  // The connection goes on after the stream.
  scheduler->wait_for(1).sink->done(finished(scheduler->id_of(1), "next"));
  CHECK(text_at(c.receive().json(), "text") == "next");
}

TEST_CASE_FIXTURE(node_fixture,
                  "a stream that breaks says so in its last frame; one that fails first is plain JSON") {
  start();
  client c = connect();
  c.send(inference_bytes(streamed));
  const generation_request first = scheduler->wait_for(0);
  first.sink->token("x", 0, std::nullopt);
  generation_result broken = finished(scheduler->id_of(0), "x");
  broken.finish_reason = "error";
  broken.failure = failure(errc::timeout, "The time limit passed.");
  first.sink->done(broken);
  const auto frames = frames_of(c.receive().body);
  REQUIRE(frames.size() == 2);
  CHECK_FALSE(frames[0].find("logprob"));
  CHECK(text_at(frames[1], "finish_reason") == "error");
  CHECK(text_at(frames[1], "error.code") == "INTERNAL_ERROR");
  CHECK(text_at(frames[1], "error.details.reason") == "timeout");

  c.send(inference_bytes(streamed));
  broken.completion_tokens = 0;
  scheduler->wait_for(1).sink->done(broken);
  const reply r = c.receive();
  CHECK(r.status == 500);
  CHECK(r.header("content-type") == "application/json");
}

TEST_CASE_FIXTURE(node_fixture, "headers of a silent stream come after a while, then pings") {
  settings.limits.stream_header_ms = 50;
  settings.limits.ping_ms = 50;
  start();
  client c = connect();
  c.send(inference_bytes(streamed));
  const generation_request r = scheduler->wait_for(0);
  CHECK(c.receive_until("\r\n\r\n").find("text/event-stream") != std::string::npos);
  CHECK(c.receive_until(": ping\n\n").find(": ping\n\n") != std::string::npos);
  CHECK(c.receive_until(": ping\n\n").find("data") == std::string::npos);
  generation_result failed = finished(scheduler->id_of(0), "");
  failed.completion_tokens = 0;
  failed.finish_reason = "error";
  failed.failure = failure(errc::no_route, "gone");
  r.sink->done(failed);
  const std::string rest = c.receive_until("0\r\n\r\n");
  CHECK(rest.find("\"reason\":\"no_route\"") != std::string::npos); // too late for a status
}

TEST_CASE_FIXTURE(node_fixture, "HTTP/1.0 gets its stream unframed, until the end of the connection") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->token("x", 0, std::nullopt);
    r.sink->done(finished(id, "x"));
  };
  start();
  client c = connect();
  c.send("POST /api/v1/inference HTTP/1.0\r\n" + bearer() +
         "Content-Length: " + std::to_string(streamed.size()) + "\r\n\r\n" + streamed);
  CHECK(c.receive_until("\r\n\r\n").find("chunked") == std::string::npos);
  const auto body = c.receive_all();
  REQUIRE(body);
  CHECK(frames_of(*body).size() == 2);
}

TEST_CASE_FIXTURE(node_fixture,
                  "a streaming client that vanishes cancels its generation, before and after admission") {
  start();
  for (const bool reset : {false, true}) {
    client c = connect();
    c.send(inference_bytes(streamed));
    const size_t n = reset ? 1 : 0;
    const generation_request r = scheduler->wait_for(n);
    r.sink->token("x", 0, std::nullopt);
    c.receive_until("\n\n");
    if (reset)
      c.reset();
    else
      c.close();
    CHECK(scheduler->wait_cancelled(scheduler->id_of(n)));
    r.sink->done(finished(scheduler->id_of(n), "x"));
  }
  CHECK(server->in_flight() <= 2);
}

TEST_CASE_FIXTURE(node_fixture, "a streaming client that does not read is cancelled when 256 frames wait") {
  start();
  client c = connect();
  c.limit_receive_buffer(4096);
  c.send(inference_bytes(streamed));
  const generation_request r = scheduler->wait_for(0);
  const std::string large(8'000, 'x');
  bool cancelled = false;
  int sent = 0;
  for (; sent < 100'000 && !cancelled; ++sent) {
    r.sink->token(large, static_cast<uint32_t>(sent), std::nullopt);
    cancelled = scheduler->cancelled_count() > 0;
    if (sent % 64 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(scheduler->wait_cancelled(scheduler->id_of(0)));
  CHECK(sent < 5'000);
  r.sink->done(finished(scheduler->id_of(0), ""));
  CHECK(get("/api/v1/status").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "what the kernel would hold for a client that does not read is bounded too") {
  start();
  client c = connect();
  c.limit_receive_buffer(4096);
  c.send(inference_bytes(streamed));
  const generation_request r = scheduler->wait_for(0);
  // Frames as small as a model's, at a pace that the connection keeps up with: all 800 KB of them would fit
  // into a send buffer that grows as it likes.
  uint32_t sent = 0;
  for (; sent < 20'000 && scheduler->cancelled_count() == 0; ++sent) {
    r.sink->token("word", sent, std::nullopt);
    if (sent % 32 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(sent < 20'000);
  CHECK(scheduler->wait_cancelled(scheduler->id_of(0)));
  r.sink->done(finished(scheduler->id_of(0), ""));
}

TEST_CASE_FIXTURE(node_fixture, "64 inferences at once, streaming and not, all get their own text") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    std::thread([r, id] {
      for (uint32_t i = 0; i < 20; ++i)
        r.sink->token(r.prompt + "-" + std::to_string(i), i, std::nullopt);
      r.sink->done(finished(id, r.prompt));
    }).detach();
  };
  start();
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 64; ++t)
    threads.emplace_back([&, t] {
      client c = connect();
      const std::string prompt = "p" + std::to_string(t);
      const bool stream = t % 2 == 0;
      const reply r = c.request("POST", "/api/v1/inference", bearer(),
                                "{\"prompt\":\"" + prompt + "\"" + (stream ? ",\"stream\":true}" : "}"));
      if (stream)
        good += r.status == 200 && r.body.find(prompt + "-19") != std::string::npos &&
                r.body.find("[DONE]") != std::string::npos;
      else
        good += r.status == 200 && r.body.find("\"text\":\"" + prompt + "\"") != std::string::npos;
    });
  for (auto& t : threads)
    t.join();
  CHECK(good == 64);
}

// -- duplicates (http-api.md section 5)

TEST_CASE_FIXTURE(node_fixture, "a retry after a lost connection attaches to the running generation") {
  settings.limits.orphan_ms = 3000;
  start();
  client first = connect();
  first.send(inference_bytes(simple));
  const generation_request r = scheduler->wait_for(0);
  first.close();
  client second = connect();
  second.send(inference_bytes(simple));
  client third = connect();
  // Another body is another request.
  third.send(inference_bytes(R"({"prompt":"Other"})"));
  scheduler->wait_for(1).sink->done(finished(scheduler->id_of(1), "other"));
  CHECK(text_at(third.receive().json(), "text") == "other");
  r.sink->done(finished(scheduler->id_of(0), "once"));
  CHECK(text_at(second.receive().json(), "id") == scheduler->id_of(0));
  CHECK(scheduler->count() == 2);
  CHECK(scheduler->cancelled_count() == 0);
}

TEST_CASE_FIXTURE(node_fixture, "a generation whose client does not come back is cancelled after the grace") {
  settings.limits.orphan_ms = 50;
  start();
  client first = connect();
  first.send(inference_bytes(simple));
  const generation_request r = scheduler->wait_for(0);
  first.reset();
  CHECK(scheduler->wait_cancelled(scheduler->id_of(0)));
  r.sink->done(finished(scheduler->id_of(0), "for nobody"));
  // A later one runs anew.
  client second = connect();
  second.send(inference_bytes(simple));
  scheduler->wait_for(1).sink->done(finished(scheduler->id_of(1), "again"));
  CHECK(text_at(second.receive().json(), "id") == scheduler->id_of(1));
}

TEST_CASE_FIXTURE(node_fixture,
                  "an undelivered result answers the identical request, once delivered a new one runs") {
  start();
  client first = connect();
  first.send(inference_bytes(simple));
  const generation_request r = scheduler->wait_for(0);
  first.close();
  for (int i = 0; i < 200 && services.counters->http_connections.load() > 0 && server->in_flight() > 0; ++i) {
    // The server sees the end of the first client before the result comes.
    client probe = connect();
    CHECK(probe.request("GET", "/api/v1/status").status == 200);
    if (i == 20)
      break;
  }
  r.sink->done(finished(scheduler->id_of(0), "kept"));
  {
    client second = connect();
    const reply got = second.request("POST", "/api/v1/inference", bearer(), simple);
    CHECK(text_at(got.json(), "id") == scheduler->id_of(0));
    CHECK(second.request("GET", "/api/v1/status").status == 200); // a sign of life: delivered
  }
  client third = connect();
  third.send(inference_bytes(simple));
  scheduler->wait_for(1).sink->done(finished(scheduler->id_of(1), "new"));
  CHECK(text_at(third.receive().json(), "id") == scheduler->id_of(1));
}

TEST_CASE_FIXTURE(node_fixture, "identical requests of connected clients run separately") {
  start();
  client first = connect(), second = connect();
  first.send(inference_bytes(simple));
  const generation_request a = scheduler->wait_for(0);
  second.send(inference_bytes(simple));
  const generation_request b = scheduler->wait_for(1);
  b.sink->done(finished(scheduler->id_of(1), "b"));
  a.sink->done(finished(scheduler->id_of(0), "a"));
  CHECK(text_at(first.receive().json(), "text") == "a");
  CHECK(text_at(second.receive().json(), "text") == "b");
  // Answered, still connected: the next one runs by itself too.
  client third = connect();
  third.send(inference_bytes(simple));
  scheduler->wait_for(2).sink->done(finished(scheduler->id_of(2), "c"));
  CHECK(text_at(third.receive().json(), "text") == "c");
}

TEST_CASE_FIXTURE(node_fixture,
                  "an answer read by a client that closed is not given to the next, however late "
                  "the server sees the close") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->done(finished(id, "x"));
  };
  settings.threads = 2;
  std::promise<void> entered, opened;
  services.config = [&, open = opened.get_future().share()] {
    entered.set_value();
    open.wait();
    return config;
  };
  start();
  // Connections go to the threads in turn: the second and the fourth share one, the first and the third the
  // other.
  client first = connect(), second = connect(), holds = connect(), after = connect();
  first.send(inference_bytes(simple));
  CHECK(text_at(first.receive().json(), "id") == scheduler->id_of(0));
  holds.send("GET /api/v1/config HTTP/1.1\r\nHost: x\r\n" + bearer() + "\r\n");
  entered.get_future().wait();
  first.close(); // nobody looks at it now
  second.send(inference_bytes(simple));
  for (int i = 0; i < 5000 && server->in_flight() < 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // What comes after it on its thread is answered: by now it has asked for the first one's socket.
  CHECK(after.request("GET", "/api/v1/wallet/balance", bearer()).status != 0);
  opened.set_value();
  CHECK(text_at(second.receive().json(), "id") == scheduler->id_of(1));
  CHECK(scheduler->count() == 2);
  CHECK(holds.receive().status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "Idempotency-Key returns the stored response, and refuses another body") {
  scheduler->run = [](const generation_request& r, const std::string& id) {
    r.sink->done(finished(id, r.prompt));
  };
  start();
  const std::string keyed = bearer() + "Idempotency-Key: key-1\r\n";
  const reply one = post("/api/v1/inference", simple, keyed);
  CHECK(one.status == 200);
  for (int i = 0; i < 2; ++i)
    CHECK(post("/api/v1/inference", simple, keyed).body == one.body);
  CHECK(scheduler->count() == 1);
  const reply other = post("/api/v1/inference", R"({"prompt":"Other"})", keyed);
  CHECK(other.status == 400);
  CHECK(text_at(other.json(), "error.details.field") == "Idempotency-Key");
  CHECK(post("/api/v1/inference", simple, bearer(inference_token) + "Idempotency-Key: key-1\r\n").body !=
        one.body);
  for (const std::string& bad :
       {std::string("Idempotency-Key: \r\n"), "Idempotency-Key: " + std::string(129, 'k') + "\r\n",
        std::string("Idempotency-Key: a\xc3\xa9\r\n"),
        std::string("Idempotency-Key: a\r\nIdempotency-Key: b\r\n")})
    CHECK(post("/api/v1/inference", simple, bearer() + bad).status == 400);
  // A stream takes no notice of the key.
  CHECK(post("/api/v1/inference", streamed, keyed).header("content-type") == "text/event-stream");
}

TEST_CASE_FIXTURE(node_fixture, "a request with the key of one that still runs waits for it") {
  start();
  const std::string keyed = bearer() + "Idempotency-Key: key-2\r\n";
  client first = connect(), second = connect(), third = connect();
  first.send(inference_bytes(simple, keyed));
  const generation_request r = scheduler->wait_for(0);
  second.send(inference_bytes(simple, keyed));
  third.send(inference_bytes(R"({"prompt":"Other"})", keyed));
  CHECK(third.receive().status == 400);
  r.sink->done(finished(scheduler->id_of(0), "both"));
  CHECK(first.receive().body == second.receive().body);
  CHECK(scheduler->count() == 1);
}

TEST_CASE_FIXTURE(node_fixture, "only successes are stored under a key") {
  std::atomic<bool> fail{true};
  scheduler->run = [&](const generation_request& r, const std::string& id) {
    generation_result result = finished(id, "x");
    if (fail) {
      result.failure = failure(errc::no_route, "gone");
      result.completion_tokens = 0;
    }
    r.sink->done(result);
  };
  start();
  const std::string keyed = bearer() + "Idempotency-Key: key-3\r\n";
  CHECK(post("/api/v1/inference", simple, keyed).status == 500);
  fail = false;
  CHECK(post("/api/v1/inference", simple, keyed).status == 200);
}

// -- admission

TEST_CASE_FIXTURE(node_fixture, "a number that no double holds is refused by its name") {
  start();
  const reply r = post("/api/v1/inference", R"({"prompt":"x","temperature":1e400})");
  CHECK(r.status == 400);
  CHECK(text_at(r.json(), "error.details.field") == "temperature");
}

TEST_CASE_FIXTURE(node_fixture,
                  "a generation that is admitted after its client was told of a timeout is taken back") {
  std::promise<void> gate;
  scheduler->admit =
      [open = gate.get_future().share()](const generation_request&,
                                         const std::string& id) -> caf::expected<generation_admitted> {
    open.wait();
    return generation_admitted{id, 5};
  };
  settings.inference_timeout_s = 0;
  start();
  for (const std::string& body : {simple, streamed}) {
    const reply r = post("/api/v1/inference", body);
    CHECK(r.status == 500);
    CHECK(text_at(r.json(), "error.details.reason") == "timeout");
  }
  CHECK(scheduler->cancelled_count() == 0);
  gate.set_value();
  for (const size_t n : {0, 1}) {
    CHECK(scheduler->wait_cancelled(scheduler->id_of(n)));
    CHECK(scheduler->was_unheard(scheduler->id_of(n)));
    // What it made until then goes nowhere.
    const generation_request r = scheduler->wait_for(n);
    r.sink->token("late", 0, std::nullopt);
    r.sink->done(finished(scheduler->id_of(n), "late"));
  }
  CHECK(scheduler->cancelled_count() == 2);
}
