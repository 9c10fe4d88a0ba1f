#include "tests/support/test.hpp"

#include "gateway/config/schema.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

#include <set>

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE("keys, flags, variables and patch names are unique") {
  std::set<std::string_view> seen;
  for (const key_spec& row : schema()) {
    CAPTURE(row.key);
    CHECK(seen.insert(row.key).second);
    for (const std::string_view name : {row.flag, row.short_flag, row.environment}) {
      if (!name.empty())
        CHECK(seen.insert(name).second);
    }
    CHECK_FALSE(row.help.empty());
    CHECK(row.help.back() != '.');
    CHECK(find_key(row.key) == &row);
  }
  CHECK(find_key("training") == nullptr);
  CHECK(find_key("") == nullptr);
  CHECK(find_patch_key("") == nullptr);
}

TEST_CASE("every field of a row is its own") {
  node_config c = default_config();
  std::set<const void*> fields;
  for (const key_spec& row : schema()) {
    CAPTURE(row.key);
    CHECK(fields.insert(std::visit([](auto* p) -> const void* { return p; }, row.field(c))).second);
  }
}

TEST_CASE("every default lies inside its own range, for every preset") {
  const machine_facts machine = small_machine();
  for (const char* preset : {"auto", "pico", "nano", "micro", "small", "medium", "large", "xl", "custom"}) {
    const node_config c = default_config(preset);
    CHECK(c.model.preset == preset);
    CHECK_FALSE(cross_check(c).has_value());
    for (const key_spec& row : schema()) {
      if (row.fallback.empty())
        continue;
      CAPTURE(row.key);
      config_value value = get_value(row, c);
      CHECK_FALSE(check_value(row, value, c, machine).has_value());
    }
  }
}

TEST_CASE("the defaults are those of the specification") {
  const node_config c = default_config("nano");
  CHECK(c.port == 8000);
  CHECK(c.http_host == "127.0.0.1");
  CHECK(c.grpc_host == "0.0.0.0");
  CHECK(c.network == "main");
  CHECK(c.training.batch_size == 8);
  CHECK(c.training.seq_len == 512);
  CHECK(c.training.microbatches == 4);
  CHECK(c.training.learning_rate == 1e-4);
  CHECK(c.training.warmup_steps == 1000);
  CHECK(c.training.decay_steps == 50000);
  CHECK(c.training.diloco_steps == 500);
  CHECK(c.training.aggregation == "trimmed_mean");
  CHECK(c.training.compression == "dense_i8");
  CHECK(c.inference.max_queue == 64);
  CHECK(c.inference.timeout_s == 120);
  CHECK(c.api.rate_limits.status == 100);
  CHECK(c.api.rate_limits.wallet == 10);
  CHECK(c.api.rate_limits.health == 600);
  CHECK(c.checkpoint.every_steps == 500);
  CHECK(c.model.num_layers == 8);
  CHECK(c.model.vocab_capacity == 32000);
  CHECK(c.model.norm_eps == 1e-6);
  CHECK(c.data.vocab_size == 32000);
  CHECK(c.data.held_out == 0.05);
  CHECK(c.economics.price_per_token == "0.0001");
  CHECK(c.economics.validator_tiers.size() == 6);
  CHECK(c.economics.validator_tiers[5] == tier_config{1001, 2500});

  const node_config pico = default_config("auto");
  CHECK(pico.training.seq_len == 256);
  CHECK(pico.training.microbatches == 1);
  CHECK(pico.training.learning_rate == 2e-3);
  CHECK(pico.training.warmup_steps == 100);
  CHECK(pico.training.decay_steps == 3000);
  CHECK(pico.model.hidden_dim == 256);
  CHECK(pico.data.vocab_size == 4096);
}

TEST_CASE("the number of keys is that of the specification's tables, and log.access") {
  size_t economics = 0;
  for (const key_spec& row : schema())
    economics += row.key.starts_with("economics.") ? 1 : 0;
  CHECK(economics == 44);
  CHECK(schema().size() == 123 + 1);
}

TEST_CASE("what is allowed is said in words") {
  const node_config c = default_config();
  CHECK(allowed_text(*find_key("port")) == "an integer from 1 to 64535");
  CHECK(allowed_text(*find_key("model.dtype")) == "one of bf16, f32");
  CHECK(allowed_text(*find_key("training.learning_rate")) == "a number above 0 to 1");
  CHECK(allowed_text(*find_key("training.trim_fraction")) == "a number from 0 and below 0.5");
  CHECK(allowed_text(*find_key("cpu_threads")) == "an integer from 1 to the hardware threads");
  CHECK(allowed_text(*find_key("cpu_threads"), c, small_machine()) ==
        "an integer from 1 to 4 (hardware threads)");
  CHECK(allowed_text(*find_key("training.seq_len"), c, small_machine()) ==
        "an integer from 16 to 2048 (model.max_seq_len)");
}

TEST_CASE("texts are checked by their rule") {
  const node_config c = default_config();
  const auto ok = [&](const char* key, const char* text) {
    auto value = parse_text(*find_key(key), text);
    return value.has_value() && !check_value(*find_key(key), *value, c, small_machine()).has_value();
  };
  for (const char* good : {"auto", "cpu", "cuda", "cuda:0", "cuda:15"})
    CHECK(ok("device", good));
  for (const char* wrong : {"mps", "cuda:", "cuda:x", "cuda:-1", "gpu", "cuda:256", ""})
    CHECK_FALSE(ok("device", wrong));
  for (const char* good : {"127.0.0.1", "::", "::1", "10.1.2.3", "fe80::1"})
    CHECK(ok("http_host", good));
  for (const char* wrong : {"localhost", "127.0.0", "1.2.3.4.5", "", "::g", "127.0.0.1:80"})
    CHECK_FALSE(ok("http_host", wrong));
  for (const char* good : {"a:1", "peer-1.example.org:9000", "10.0.0.1:65535", "[::1]:9000", ""})
    CHECK(ok("tracker", good));
  for (const char* wrong :
       {"a", "a:", ":9000", "a:0", "a:65536", "a:1x", "::1:9000", "[::1]", "http://a:1", "a b:1"})
    CHECK_FALSE(ok("tracker", wrong));
  for (const char* good : {"10.0.0.1", "10.0.0.0/8,::1/128", "0.0.0.0/0", ""})
    CHECK(ok("api.trusted_proxies", good));
  for (const char* wrong : {"10.0.0.0/33", "::/129", "x", "10.0.0.0/", "10.0.0.0/-1"})
    CHECK_FALSE(ok("api.trusted_proxies", wrong));
  for (const char* good : {"https://a.org", "http://localhost:3000", "http://[::1]:8080"})
    CHECK(ok("api.cors_origins", good));
  for (const char* wrong : {"*", "a.org", "https://a.org/", "ftp://a.org", "https://"})
    CHECK_FALSE(ok("api.cors_origins", wrong));
  for (const char* good : {"main", "test-1", "a"})
    CHECK(ok("network", good));
  for (const char* wrong : {"Main", "", "a_b", "aaaaaaaaaabbbbbbbbbbccccccccccddd"})
    CHECK_FALSE(ok("network", wrong));
  for (const char* good : {"0", "0.0001", "1000000000000", "1e3"})
    CHECK(ok("economics.price_per_token", good));
  for (const char* wrong : {"-1", "abc", "", "1000000000000.1", "1e40", "0.0000000000000000001", "NaN"})
    CHECK_FALSE(ok("economics.price_per_token", wrong));
  CHECK(ok("log_level", "debug"));
  CHECK_FALSE(ok("log_level", "LOUD"));
  CHECK_FALSE(ok("model.dtype", "BF16"));
}

TEST_CASE("numbers are read whole or not at all") {
  const key_spec& port = *find_key("port");
  for (const char* wrong : {"", "80x", "0x50", "80.0", "1e3", "99999999999999999999", "+80", "-"})
    CHECK_FALSE(parse_text(port, wrong).has_value());
  CHECK(std::get<int64_t>(*parse_text(port, " 80 ")) == 80);
  const key_spec& seed = *find_key("model.seed");
  CHECK(std::get<uint64_t>(*parse_text(seed, "18446744073709551615")) == 18446744073709551615ULL);
  CHECK_FALSE(parse_text(seed, "18446744073709551616").has_value());
  CHECK_FALSE(parse_text(seed, "-1").has_value());
  const node_config c = default_config();
  for (const char* wrong : {"nan", "inf", "-inf", "0", "1.1", "-0.5"}) {
    auto value = parse_text(*find_key("training.learning_rate"), wrong);
    if (value)
      CHECK(check_value(*find_key("training.learning_rate"), *value, c, small_machine()).has_value());
  }
}

TEST_CASE("lists are read from commas and from brackets") {
  const key_spec& peers = *find_key("seed_peers");
  using list = std::vector<std::string>;
  CHECK(std::get<list>(*parse_text(peers, "a:1, b:2 ,")) == list{"a:1", "b:2"});
  CHECK(std::get<list>(*parse_text(peers, R"(["a:1", "b:2"])")) == list{"a:1", "b:2"});
  CHECK(std::get<list>(*parse_text(peers, "")).empty());
  const auto tokens = parse_text(*find_key("api.tokens"),
                                 "[{sha256 = \"" + std::string(64, 'A') + "\", scopes = [\"read\"]}]");
  REQUIRE(tokens.has_value());
  config_value value = *tokens;
  CHECK_FALSE(check_value(*find_key("api.tokens"), value, default_config(), small_machine()).has_value());
  CHECK(std::get<std::vector<access_token_rule>>(value)[0].sha256 == std::string(64, 'a'));
  CHECK_FALSE(parse_text(*find_key("api.tokens"), "[{sha256 = 1}]").has_value());
  CHECK_FALSE(parse_text(*find_key("economics.validator_tiers"), "[[0, 0], [1]]").has_value());
}

TEST_CASE("a mistyped key finds its neighbour") {
  const std::string_view known[] = {"training.batch_size", "port"};
  CHECK(closest("training.batchsize", known) == "training.batch_size");
  CHECK(closest("porrt", known) == "port");
  CHECK(closest("something.else.entirely", known).empty());
  CHECK(closest(std::string(100000, 'x'), known).empty());
}

TEST_CASE("ports follow the HTTP port") {
  node_config c = default_config();
  CHECK(grpc_port(c) == 9000);
  CHECK(dht_port(c) == 10000);
  c.port = 64000;
  CHECK(dht_port(c) == 0);
  c.dht.port = 5;
  CHECK(dht_port(c) == 5);
  c.dht.enabled = false;
  CHECK(dht_port(c) == 0);
  CHECK(takes_layers(c));
  c.tracker_mode = true;
  CHECK_FALSE(takes_layers(c));
  c.tracker_mode = false;
  c.observer = true;
  CHECK_FALSE(takes_layers(c));
  CHECK(http_is_loopback(c));
  for (const char* host : {"127.3.2.1", "::1", "localhost", "::ffff:127.0.0.1"})
    CHECK(is_loopback_host(host));
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "example.org", "128.0.0.1"})
    CHECK_FALSE(is_loopback_host(host));
}

TEST_CASE("the URL of the API is one that a program on this machine can use") {
  node_config c = default_config();
  CHECK(api_url(c) == "http://127.0.0.1:8000");
  for (const auto& [host, url] :
       {std::pair{"0.0.0.0", "http://127.0.0.1:8000"}, std::pair{"::", "http://[::1]:8000"},
        std::pair{"::1", "http://[::1]:8000"}, std::pair{"2001:db8::5", "http://[2001:db8::5]:8000"},
        std::pair{"192.0.2.7", "http://192.0.2.7:8000"}}) {
    c.http_host = host;
    CHECK(api_url(c) == url);
  }
  c.api.tls_cert = "/c.pem";
  c.port = 8443;
  CHECK(api_url(c) == "https://192.0.2.7:8443");
}

TEST_CASE("the machine is asked for a directory that does not exist yet") {
  const machine_facts facts = read_machine_facts("/tmp/no/such/place/yet");
  CHECK(facts.hardware_threads >= 1);
  CHECK(facts.physical_memory_mb > 0);
  CHECK(facts.free_disk_mb > 0);
}
