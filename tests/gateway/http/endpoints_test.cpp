#include "kernels/core/sha256.hpp"
#include "tests/gateway/http/node_fixture.hpp"

#include <openssl/evp.h>

#include <set>

using namespace neuroshard;
using namespace neuroshard::test;
using kind = http::json_value::kind;

namespace {

/// Every field of a page with its type; "!" after the path: may be null.
void check_types(const http::json_value& json, const std::vector<std::pair<const char*, kind>>& fields) {
  for (const auto& [path, type] : fields) {
    INFO("field: " << std::string(path));
    CHECK(at(json, path).type == type);
  }
}

void check_error(const reply& r, int status, const char* code) {
  INFO("body: " << r.body);
  CHECK(r.status == status);
  CHECK(r.header("content-type") == "application/json");
  const auto json = r.json();
  CHECK(text_at(json, "error.code") == code);
  CHECK_FALSE(text_at(json, "error.message").empty());
  CHECK(at(json, "error.details").type == kind::object);
}

} // namespace

TEST_CASE_FIXTURE(node_fixture, "GET /status has every field with its type") {
  start();
  const reply r = get("/api/v1/status", "");
  CHECK(r.status == 200);
  CHECK(r.header("content-type") == "application/json");
  CHECK(r.header("x-request-id").size() == 32);
  CHECK_FALSE(r.has("x-ratelimit-limit"));
  const auto json = r.json();
  check_types(json, {{"node_id", kind::string},
                     {"version", kind::string},
                     {"uptime_seconds", kind::number},
                     {"status", kind::string},
                     {"role", kind::string},
                     {"roles", kind::array},
                     {"layers", kind::array},
                     {"peer_count", kind::number},
                     {"has_embedding", kind::boolean},
                     {"has_lm_head", kind::boolean},
                     {"training.enabled", kind::boolean},
                     {"training.epoch", kind::number},
                     {"training.step", kind::number},
                     {"training.loss", kind::number},
                     {"resources.gpu_memory_used", kind::number},
                     {"resources.gpu_memory_total", kind::number},
                     {"resources.cpu_percent", kind::number},
                     {"resources.ram_used", kind::number},
                     {"resources.ram_total", kind::number},
                     {"model.architecture", kind::string},
                     {"model.version", kind::number},
                     {"model.hash", kind::string},
                     {"model.trained", kind::boolean},
                     {"model.tokens_trained", kind::number}});
  CHECK(text_at(json, "status") == "training");
  CHECK(text_at(json, "role") == "driver");
  CHECK(at(json, "roles").items.size() == 3);
  CHECK(text_at(json, "layers.1") == "1");
  CHECK(at(json, "layers").items.size() == 2);
  CHECK(at(json, "has_lm_head").flag);
  CHECK(text_at(json, "training.loss") == "5.25");
  CHECK(text_at(json, "uptime_seconds") == "42");
}

TEST_CASE_FIXTURE(node_fixture, "a page follows the next snapshot, and a loss that is not finite reads 0.0") {
  start();
  client c = connect();
  CHECK(text_at(c.request("GET", "/api/v1/status").json(), "training.step") == "120");
  publish([](node_snapshot& s) {
    auto t = std::make_shared<training_progress>(*s.training);
    t->inner_step = 121;
    t->loss_ema = std::numeric_limits<double>::quiet_NaN();
    s.training = t;
    s.state = node_state::starting;
  });
  const auto json = c.request("GET", "/api/v1/status").json();
  CHECK(text_at(json, "training.step") == "121");
  CHECK(text_at(json, "training.loss") == "0.0");
  CHECK(text_at(json, "status") == "starting");
  CHECK(at(c.request("GET", "/api/training/global").json(), "global_avg_loss").type == kind::null);
}

TEST_CASE_FIXTURE(node_fixture, "GET /metrics has every field, as JSON or Prometheus text by Accept") {
  start();
  const reply r = get("/api/v1/metrics", "");
  check_types(r.json(), {{"timestamp", kind::string},
                         {"inference.requests_total", kind::number},
                         {"inference.requests_per_minute", kind::number},
                         {"inference.avg_latency_ms", kind::number},
                         {"inference.p99_latency_ms", kind::number},
                         {"inference.tokens_generated", kind::number},
                         {"training.steps_total", kind::number},
                         {"training.steps_per_hour", kind::number},
                         {"training.gradients_submitted", kind::number},
                         {"training.gradients_accepted", kind::number},
                         {"network.bytes_sent", kind::number},
                         {"network.bytes_received", kind::number},
                         {"network.active_connections", kind::number},
                         {"network.rpc_calls", kind::number},
                         {"network.peer_count", kind::number},
                         {"rewards.earned_today", kind::number},
                         {"rewards.earned_total", kind::number},
                         {"rewards.pending", kind::number}});
  CHECK(text_at(r.json(), "timestamp") == "2027-01-15T08:00:00Z");
  CHECK(text_at(r.json(), "rewards.earned_total") == "0.125");
  for (const auto& [path, headers] :
       {std::pair{"/api/v1/metrics", "Accept: text/plain\r\n"}, std::pair{"/metrics", ""},
        std::pair{"/metrics", "Accept: application/json\r\n"},
        std::pair{"/api/v1/metrics", "Accept: text/plain;version=0.0.4;q=0.5, */*;q=0.1\r\n"}}) {
    const reply text = get(path, headers);
    CHECK(text.status == 200);
    CHECK(text.header("content-type").rfind("text/plain; version=0.0.4", 0) == 0);
    CHECK(text.body.find("# TYPE neuroshard_inference_requests_total counter") != std::string::npos);
    CHECK(text.body.find("neuroshard_rewards_earned_total 0.125") != std::string::npos);
  }
  for (const char* accept : {"*/*", "application/json", "application/json, text/plain;q=0.5", "text/html"})
    CHECK(get("/api/v1/metrics", "Accept: " + std::string(accept) + "\r\n").header("content-type") ==
          "application/json");
}

TEST_CASE_FIXTURE(node_fixture, "GET /health is 200 either way, and 500 with strict=true when unhealthy") {
  start();
  auto json = get("/api/v1/health").json();
  CHECK(at(json, "healthy").flag);
  for (const char* check : {"gpu", "network", "storage", "peers", "model"})
    CHECK(at(json, std::string("checks.") + check).type == kind::string);
  CHECK(get("/api/v1/health?strict=true").status == 200);
  publish([](node_snapshot& s) { s.health_storage = "error"; });
  const reply plain = get("/api/v1/health");
  CHECK(plain.status == 200);
  CHECK_FALSE(at(plain.json(), "healthy").flag);
  const reply strict = get("/api/v1/health?strict=true");
  check_error(strict, 500, "INTERNAL_ERROR");
  CHECK(text_at(strict.json(), "error.details.reason") == "unhealthy");
  CHECK(text_at(strict.json(), "error.details.request_id") == strict.header("x-request-id"));
  CHECK(text_at(strict.json(), "error.details.checks.storage") == "error");
  check_error(get("/api/v1/health?strict=maybe"), 400, "INVALID_REQUEST");
  publish([](node_snapshot& s) {
    s.health_storage = "ok";
    s.health_peers = "error";
  });
  CHECK(at(get("/api/v1/health").json(), "healthy").flag);
}

TEST_CASE_FIXTURE(node_fixture, "GET /network counts this node and its online peers") {
  publish([](node_snapshot& s) {
    auto peers = std::make_shared<peer_list>(2);
    (*peers)[0].state = peer_state::online;
    (*peers)[0].node.roles = {node_role::worker};
    (*peers)[0].node.memory_total_mb = 1024;
    (*peers)[0].node.memory_free_mb = 1024;
    (*peers)[1].state = peer_state::dead;
    (*peers)[1].node.roles = {node_role::worker};
    s.peers = peers;
  });
  start();
  const auto json = get("/api/v1/network", "").json();
  CHECK(text_at(json, "nodes.total") == "2");
  CHECK(text_at(json, "nodes.drivers") == "1");
  CHECK(text_at(json, "nodes.workers") == "2");
  CHECK(text_at(json, "nodes.validators") == "1");
  CHECK(text_at(json, "architecture.parameters") == "308.8M");
  CHECK(text_at(json, "architecture.parameter_count") == "308800000");
  CHECK(text_at(json, "architecture.layers") == "6");
  CHECK(text_at(json, "architecture.hidden_dim") == "256");
  CHECK(text_at(json, "capacity.total_memory_gb") == "3.0");
  CHECK(text_at(json, "capacity.used_memory_gb") == "0.5");
  CHECK(text_at(json, "training.global_step") == "120");
}

TEST_CASE_FIXTURE(node_fixture,
                  "GET /peers and /layers tell the truth of a node alone and of one with peers") {
  start();
  auto json = get("/api/v1/peers").json();
  CHECK(at(json, "peers").items.empty());
  CHECK(text_at(json, "total") == "0");
  publish([](node_snapshot& s) {
    auto peers = std::make_shared<peer_list>(1);
    auto& p = (*peers)[0];
    p.node.node_id = std::string(32, '9');
    p.node.host = "::1";
    p.node.grpc_port = 9000;
    p.node.roles = {node_role::worker};
    p.node.layer_begin = 2;
    p.node.layer_end = 4;
    p.state = peer_state::online;
    p.latency_ms = 1.5;
    s.peers = peers;
  });
  json = get("/api/v1/peers").json();
  CHECK(text_at(json, "peers.0.address") == "[::1]:9000");
  CHECK(text_at(json, "peers.0.role") == "worker");
  CHECK(text_at(json, "peers.0.layers.1") == "3");
  CHECK(text_at(json, "peers.0.latency_ms") == "1.5");
  CHECK(at(json, "peers.0.connected_since").type == kind::null);
  CHECK(text_at(json, "peers.0.state") == "online");
  CHECK(text_at(json, "peers.0.refused") == "0");
  CHECK(at(json, "peers.0.refused_reason").type == kind::null);
  CHECK(at(json, "peers.0.ignored_until_round").type == kind::null);
  publish([](node_snapshot& s) {
    auto peers = std::make_shared<peer_list>(*s.peers);
    (*peers)[0].standing = {3, "not_finite", 17};
    s.peers = peers;
  });
  json = get("/api/v1/peers").json();
  CHECK(text_at(json, "peers.0.refused") == "3");
  CHECK(text_at(json, "peers.0.refused_reason") == "not_finite");
  CHECK(text_at(json, "peers.0.ignored_until_round") == "17");
  CHECK(text_at(get("/api/v1/status").json(), "peer_count") == "1");

  json = get("/api/v1/layers").json();
  CHECK(at(json, "layers").items.size() == 4);
  CHECK(text_at(json, "layers.0.type") == "embedding");
  CHECK(text_at(json, "layers.3.index") == "6");
  CHECK(text_at(json, "layers.1.memory_mb") == "3");
  CHECK(text_at(json, "layers.1.status") == "active");
  CHECK(text_at(json, "total_layers") == "6");
  CHECK(text_at(json, "my_layer_count") == "2");

  for (const char* bad :
       {"limit=0", "limit=101", "limit=x", "limit=1.5", "offset=-1", "type=other", "limit=1&limit=2", "a=%"})
    check_error(get("/api/v1/proofs?" + std::string(bad)), 400, "INVALID_REQUEST");
}

TEST_CASE_FIXTURE(node_fixture, "the training pages follow the formulas") {
  start();
  auto json = get("/api/training/global", "").json();
  CHECK(text_at(json, "global_avg_loss") == "5.25");
  CHECK(text_at(json, "loss_trend") == "improving_strongly");
  CHECK(at(json, "is_converging").flag);
  CHECK(at(json, "training_verified").flag);
  CHECK(text_at(json, "hash_agreement_rate") == "1.0");
  CHECK(text_at(json, "data_shards_covered.1") == "3");
  CHECK(text_at(json, "sync_success_rate") == "0.0");
  CHECK(text_at(json, "local.training_rounds") == "2");
  CHECK(at(json, "local.is_training").flag);
  CHECK(text_at(json, "diloco.inner_step_count") == "20");
  CHECK(text_at(json, "diloco.progress") == "0.4");
  CHECK(get("/api/v1/training/global", "").body == get("/api/training/global", "").body);
  json = get("/api/v1/training/verify", "").json();
  CHECK(at(json, "is_working").flag);
  CHECK(text_at(json, "state") == "working");
  CHECK(text_at(json, "metrics.hash_agreement") == "100.0%");
  publish([](node_snapshot& s) {
    auto t = std::make_shared<training_progress>(*s.training);
    t->inner_step = 3;
    t->loss_ema.reset();
    s.training = t;
  });
  json = get("/api/training/verify", "").json();
  CHECK_FALSE(at(json, "is_working").flag);
  CHECK(text_at(json, "state") == "insufficient_data");
  CHECK(at(json, "action").type == kind::string);
  CHECK(at(get("/api/training/global", "").json(), "local.current_loss").type == kind::null);
}

TEST_CASE_FIXTURE(node_fixture, "GET and PATCH /config show and change what they may") {
  config->tracker = "";
  start();
  auto json = get("/api/v1/config").json();
  CHECK(text_at(json, "node_id") == std::string(32, '0'));
  CHECK(text_at(json, "port") == "8000");
  CHECK(text_at(json, "grpc_port") == "9000");
  CHECK(at(json, "tracker_url").type == kind::string);
  CHECK(at(json, "training.enabled").type == kind::boolean);
  CHECK(at(json, "training.learning_rate").type == kind::number);
  CHECK(at(json, "resources.max_memory_gb").type == kind::null);
  CHECK(at(json, "resources.max_storage_mb").type == kind::number);

  client c = connect();
  const auto patch = [&](std::string_view body) {
    return c.request("PATCH", "/api/v1/config", bearer(), body);
  };
  reply r = patch(R"({"training":{"batch_size":16.0,"enabled":false},"resources":{"max_memory_gb":0.5}})");
  CHECK(r.status == 200);
  json = r.json();
  CHECK(at(json, "success").flag);
  CHECK(at(json, "updated").items.size() == 3);
  CHECK(at(json, "restart_required").flag);
  CHECK(text_at(get("/api/v1/config").json(), "training.batch_size") == "16");
  CHECK(text_at(get("/api/v1/config").json(), "resources.max_memory_gb") == "0.5");
  for (const char* empty : {"{}", R"({"training":{}})"}) {
    r = patch(empty);
    CHECK(r.status == 200);
    CHECK(at(r.json(), "updated").items.empty());
    CHECK_FALSE(at(r.json(), "restart_required").flag);
  }
  r = patch(R"({"training":{"batch_size":0,"enabled":true}})");
  check_error(r, 400, "INVALID_REQUEST");
  CHECK(text_at(r.json(), "error.details.field") == "training.batch_size");
  CHECK(text_at(r.json(), "error.details.min") == "1");
  CHECK_FALSE(at(get("/api/v1/config").json(), "training.enabled").flag); // all or nothing
  for (const char* bad : {R"({"nope":1})", R"({"training":{"nope":1}})", R"({"training.batch_size":4})",
                          R"({"training":{"batch_size":null}})", R"({"training":{"batch_size":"4"}})",
                          R"({"training":{"batch_size":{}}})", R"({"training":[1]})", "[]", "7", "", "{"})
    check_error(patch(bad), 400, "INVALID_REQUEST");
  for (const char* fixed :
       {R"({"port":1})", R"({"node_id":"x"})", R"({"grpc_port":1})", R"({"tracker_url":"x"})"})
    check_error(patch(fixed), 403, "FORBIDDEN");
}

TEST_CASE_FIXTURE(node_fixture, "unknown paths and wrong methods are 404, the second with Allow") {
  start();
  client c = connect();
  for (const char* path : {"/assets/x", "/api/v1", "/api/v1/status/", "/api/v2/status",
                           "/v1/chat/completions", "/%2e%2e/etc/passwd"}) {
    const reply r = c.request("GET", path, bearer());
    check_error(r, 404, "NOT_FOUND");
    CHECK(text_at(r.json(), "error.details.identifier") == path);
    CHECK(text_at(r.json(), "error.details.resource") == "path");
    CHECK_FALSE(r.has("allow"));
  }
  const reply wrong = c.request("DELETE", "/api/v1/status");
  check_error(wrong, 404, "NOT_FOUND");
  CHECK(wrong.header("allow") == "GET, HEAD");
  CHECK(c.request("GET", "/api/v1/inference", bearer()).header("allow") == "POST");
  CHECK(c.request("PUT", "/api/v1/config").header("allow") == "GET, HEAD, PATCH");
  CHECK(c.request("GET", "/api/v1/wallet/stake/add", bearer()).header("allow") == "POST");
  CHECK(c.request("OPTIONS", "/api/v1/status", "Origin: http://x\r\nAccess-Control-Request-Method: GET\r\n")
            .status == 404);
  CHECK(c.request("GET", "http://localhost:1/api/v1/status?x=1").status == 200);
}

TEST_CASE_FIXTURE(node_fixture, "HEAD is GET without a body") {
  start();
  client c = connect();
  const reply full = c.request("GET", "/api/v1/status");
  const reply head = c.request("HEAD", "/api/v1/status");
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == full.header("content-length"));
  CHECK(c.request("HEAD", "/nothing").status == 404);
  CHECK(c.request("GET", "/api/v1/status").status == 200); // nothing was left over
}

TEST_CASE_FIXTURE(node_fixture, "X-Request-Id is the client's when it is well formed, and else made") {
  start();
  client c = connect();
  const auto id = [&](const std::string& sent) {
    return c.request("GET", "/api/v1/status", "X-Request-Id: " + sent + "\r\n").header("x-request-id");
  };
  CHECK(id("abc_DEF-123") == "abc_DEF-123");
  CHECK(id(std::string(64, 'x')) == std::string(64, 'x'));
  std::set<std::string> made;
  for (const std::string& bad :
       {std::string(65, 'x'), std::string("a b"), std::string("a\"b"), std::string("")})
    made.insert(id(bad));
  CHECK(made.size() == 4);
  for (const std::string& m : made)
    CHECK(m.size() == 32);
}

TEST_CASE_FIXTURE(node_fixture, "CORS answers listed origins only") {
  settings.cors_origins = {"https://app.example"};
  start();
  client c = connect();
  reply r = c.request("GET", "/api/v1/status", "Origin: https://app.example\r\n");
  CHECK(r.header("access-control-allow-origin") == "https://app.example");
  CHECK(r.header("vary") == "Origin");
  CHECK_FALSE(c.request("GET", "/api/v1/status", "Origin: https://evil.example\r\n")
                  .has("access-control-allow-origin"));
  r = c.request("OPTIONS", "/api/v1/inference",
                "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n");
  CHECK(r.status == 204);
  CHECK(r.header("access-control-allow-methods") == "POST");
  CHECK(r.header("access-control-allow-headers").find("Authorization") != std::string::npos);
  CHECK(c.request("OPTIONS", "/api/v1/inference",
                  "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n")
            .status == 404);
  CHECK(c.request("OPTIONS", "/api/v1/inference").status == 404);
  CHECK(c.request("OPTIONS", "*").status == 404);
  // Errors are readable for the page too.
  CHECK(c.request("GET", "/api/v1/peers", "Origin: https://app.example\r\n")
            .has("access-control-allow-origin"));
}

TEST_CASE_FIXTURE(node_fixture, "the root is a page that brings everything with it and looks at no token") {
  settings.rates.status = 3;
  start();
  const reply r = get("/", bearer("wrong-token"));
  CHECK(r.status == 200);
  CHECK(r.header("content-type") == "text/html; charset=utf-8");
  CHECK(r.header("x-ratelimit-remaining") == "2");
  const std::string policy = r.header("content-security-policy");
  CHECK(policy.rfind("default-src 'none'; script-src 'sha256-", 0) == 0);
  CHECK(policy.find("unsafe") == std::string::npos);
  CHECK(r.body.rfind("<!DOCTYPE html>", 0) == 0);
  CHECK(r.body.find("</html>") != std::string::npos);
  // Nothing from elsewhere, nothing that a policy of hashes does not allow, nothing kept.
  for (const char* never :
       {"http://", "https://", "src=", "href=", "style=", "onclick=", "localStorage", "document.cookie"})
    CHECK(r.body.find(never) == std::string::npos);
  const std::string script =
      r.body.substr(r.body.find("<script>") + 8, r.body.find("</script>") - r.body.find("<script>") - 8);
  unsigned char hash[45];
  const kernels::digest digest = kernels::sha256::of(std::string_view(script));
  EVP_EncodeBlock(hash, digest.data(), static_cast<int>(digest.size()));
  CHECK(policy.find("script-src 'sha256-" + std::string(reinterpret_cast<char*>(hash)) + "'") !=
        std::string::npos);
  const reply asset = get("/assets/app.js", {});
  check_error(asset, 404, "NOT_FOUND");
  CHECK(asset.header("x-ratelimit-remaining") == "1");
  CHECK(text_at(asset.json(), "error.details.identifier") == "/assets/app.js");
  check_error(post("/", "{}"), 404, "NOT_FOUND");
}
