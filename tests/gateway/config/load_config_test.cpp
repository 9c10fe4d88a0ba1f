#include "tests/support/test.hpp"

#include "gateway/config/adopted_architecture.hpp"
#include "gateway/config/data_dir.hpp"
#include "gateway/config/load_config.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(load_fixture, "with nothing given the defaults of pico stand") {
  auto loaded = load({});
  REQUIRE(loaded);
  node_config expected = default_config("auto");
  expected.data.tokenizer = data_dir() + "/tokenizer.json";
  CHECK(loaded->config == expected);
  CHECK(loaded->data_dir == data_dir());
  CHECK_FALSE(loaded->token.has_value());
  CHECK(loaded->notes.empty());
}

TEST_CASE_FIXTURE(load_fixture,
                  "flags win over environment over config.json over file over preset over default") {
  std::filesystem::create_directories(data_dir());
  const std::string file =
      dir.write("node.toml", "port = 1001\n[training]\nbatch_size = 16\nlearning_rate = 0.5\n"
                             "diloco_steps = 7\n[model]\npreset = \"nano\"\n");
  CHECK(load({"--config", file})->config.training.batch_size == 16);
  CHECK(load({"--config", file})->config.training.seq_len == 512);
  config_json json;
  json.settings = {{"training.batch_size", int64_t{32}}, {"training.diloco_steps", int64_t{9}}};
  REQUIRE(write_config_json(data_paths{data_dir()}.config_json(), json));
  variables["NEUROSHARD_PORT"] = "1002";
  auto loaded = load({"--config", file, "--diloco-steps", "11"});
  REQUIRE(loaded);
  CHECK(loaded->config.training.batch_size == 32);
  CHECK(loaded->config.training.diloco_steps == 11);
  CHECK(loaded->config.port == 1002);
  CHECK(loaded->config.training.learning_rate == 0.5);
  CHECK(loaded->config.model.hidden_dim == 512);
  CHECK(loaded->source.at("training.batch_size") == config_source::config_json);
  CHECK(loaded->source.at("port") == config_source::environment);
  CHECK(loaded->source.at("training.diloco_steps") == config_source::command_line);
  // What config.json overrides is told; what a flag overrides again is not.
  REQUIRE(loaded->notes.size() == 1);
  CHECK(contains(loaded->notes[0], "training.batch_size = 32"));
  CHECK(load({"--config", file, "-p", "3", "--set", "port=4"})->config.port == 4);
  CHECK(load({"--config", file, "--set", "port=4", "--port=5"})->config.port == 5);
}

TEST_CASE_FIXTURE(load_fixture, "an empty variable counts as unset, and lists are separated by commas") {
  variables["NEUROSHARD_PORT"] = "";
  variables["NEUROSHARD_TOKEN"] = "";
  variables["NEUROSHARD_BOOTSTRAP_NODES"] = "a:1,b:2";
  auto loaded = load({});
  REQUIRE(loaded);
  CHECK(loaded->config.port == 8000);
  CHECK(loaded->config.seed_peers == std::vector<std::string>{"a:1", "b:2"});
  CHECK_FALSE(loaded->token.has_value());
}

TEST_CASE_FIXTURE(load_fixture, "places come from the environment too") {
  variables["HOME"] = dir.path();
  variables["NEUROSHARD_CONFIG"] = dir.write("c.toml", "port = 77\n");
  variables["NEUROSHARD_DATA_DIR"] = "~/elsewhere";
  auto line = parse_command_line({});
  load_environment around;
  around.machine = small_machine();
  around.variable = [this](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  auto loaded = load_config(*line, around);
  REQUIRE(loaded);
  CHECK(loaded->config.port == 77);
  CHECK(loaded->data_dir == dir.path() + "/elsewhere");
  variables.erase("NEUROSHARD_DATA_DIR");
  CHECK(load_config(*line, around)->data_dir == dir.path() + "/.neuroshard");
}

TEST_CASE_FIXTURE(load_fixture, "messages name source, key, value and what is allowed") {
  CHECK(refused({"--port", "70000"}) == "--port = 70000: must be an integer from 1 to 64535");
  CHECK(refused({"-p", "x"}) == "--port = x: must be an integer from 1 to 64535");
  CHECK(refused({"--set", "training.batch_size=0"}) ==
        "--set training.batch_size = 0: must be an integer from 1 to 1024");
  CHECK(refused({"--memory", "17000"}) ==
        "--memory = 17000 (memory_mb): must be an integer from 256 to 16000 (physical memory)");
  CHECK(refused({"--cpu-threads", "5"}) ==
        "--cpu-threads = 5 (cpu_threads): must be an integer from 1 to 4 (hardware threads)");
  CHECK(contains(refused({"--cpu-threads", "0"}), "must be an integer from 1 to 4"));
  CHECK(contains(refused({"--device", "mps"}),
                 "--device = mps: must be auto, cuda, cuda:N or cpu (mps is not supported)"));
  CHECK(refused({"--set", "training.batchsize=1"}) ==
        "--set: unknown key training.batchsize (did you mean training.batch_size?)");
  variables["NEUROSHARD_PORT"] = "0";
  CHECK(refused({}) == "NEUROSHARD_PORT = 0 (port): must be an integer from 1 to 64535");
  // Also when a flag would win.
  CHECK(contains(refused({"--port", "1"}), "NEUROSHARD_PORT"));
  variables.clear();
  const std::string file = dir.path() + "/node.toml";
  CHECK(refused_file("\nport = 70000\n") == file + ":2: port = 70000: must be an integer from 1 to 64535");
  CHECK(refused_file("port = \"8000\"\n") ==
        file + ":1: port = \"8000\": must be an integer from 1 to 64535");
  CHECK(refused_file("port = 8000.0\n") == file + ":1: port = 8000: must be an integer from 1 to 64535");
  CHECK(refused_file("[training]\nbatchsize = 3\n") ==
        file + ":2: unknown key training.batchsize (did you mean training.batch_size?)");
  CHECK(contains(refused_file("training = 3\n"), file + ":1: training = 3: must be a section, [training]"));
  CHECK(contains(refused_file("[port]\nx = 1\n"), file + ":1: port = a table: must be an integer"));
  CHECK(contains(refused_file("[nothing]\n"), file + ":1: unknown key nothing"));
  CHECK(contains(refused_file("[economics]\nprice_per_token = 0.1\n"),
                 "must be a NEURO amount as decimal text"));
  CHECK(
      contains(refused_file("[api]\ntokens = [{sha256 = \"00\", scopes = [\"read\"]}]\n"), "64 hex digits"));
  CHECK(contains(refused_file("port = \n"), file + ":1: "));
  CHECK(
      contains(refused({"--config", dir.path() + "/none.toml"}), "none.toml: cannot be read: No such file"));
  CHECK(contains(refused({"--config", dir.path()}), "is not a regular file"));
}

TEST_CASE_FIXTURE(load_fixture, "rules between keys are checked") {
  CHECK(contains(refused({"--set", "training.compression=topk_i8"}), "needs training.aggregation = mean"));
  CHECK(load({"--set", "training.compression=topk_i8", "--set", "training.aggregation=mean"}));
  CHECK(
      contains(refused({"--set", "economics.reservation_s=179"}), "at least inference.timeout_s + 60 (180)"));
  CHECK(load({"--set", "economics.reservation_s=180"}));
  CHECK(contains(refused({"--set", "api.tls.cert=/a"}), "api.tls.key is not given"));
  CHECK(contains(refused({"--set", "grpc.insecure=true"}),
                 "every gRPC address must be loopback, but grpc_host = 0.0.0.0"));
  CHECK(load(
      {"--set", "grpc.insecure=true", "--grpc-host", "127.0.0.1", "--seed-peers", "localhost:9,[::1]:8"}));
  CHECK(contains(refused({"--set", "grpc.insecure=true", "--grpc-host", "::1", "--seed-peers", "a.org:9"}),
                 "seed_peers = a.org:9"));
  CHECK(contains(refused({"--set", "peers.min=9", "--set", "peers.max=8"}), "peers.min = 9"));
  CHECK(contains(refused({"--set", "economics.driver_bp=1"}), "must be 10000"));
  CHECK(contains(refused({"--set", "economics.min_stake=20000000"}), "economics.max_stake"));
  CHECK(contains(refused({"--set", "economics.default_lock_days=3"}), "economics.default_lock_days = 3"));
  CHECK(contains(refused({"--set", "training.warmup_steps=3001"}), "from 0 to 3000 (training.decay_steps)"));
  CHECK(contains(refused({"--set", "training.microbatches=9"}), "from 1 to 8 (training.batch_size)"));
  CHECK(contains(refused({"--set", "training.seq_len=2049"}), "2048 (model.max_seq_len)"));
  CHECK(contains(refused({"--set", "data.vocab_size=4097"}), "from 266 to 4096 (model.vocab_capacity)"));
  CHECK(contains(refused({"--set", "peers.max_layers=7"}), "from 0 to 6 (model.num_layers)"));
}

TEST_CASE_FIXTURE(load_fixture, "a default gives way to a value that was given") {
  CHECK(load({"--set", "training.decay_steps=50"})->config.training.warmup_steps == 50);
  CHECK(
      load({"--set", "model.preset=nano", "--set", "training.batch_size=2"})->config.training.microbatches ==
      2);
  auto custom = load({"--set", "model.preset=custom", "--set", "model.max_seq_len=128", "--set",
                      "model.vocab_capacity=512"});
  REQUIRE(custom);
  CHECK(custom->config.training.seq_len == 128);
  CHECK(custom->config.data.vocab_size == 512);
}

TEST_CASE_FIXTURE(load_fixture,
                  "the shape of a model is for the preset custom alone, and must fit the kernels") {
  CHECK(contains(refused({"--set", "model.hidden_dim=512"}), "only with model.preset = custom (it is auto)"));
  const std::vector<std::string> base = {"--set", "model.preset=custom"};
  const auto with = [&](std::vector<std::string> sets) {
    std::vector<std::string> all = base;
    for (const std::string& s : sets)
      all.insert(all.end(), {"--set", s});
    return refused(all);
  };
  CHECK(with({}) == "accepted");
  CHECK(with({"model.hidden_dim=768", "model.num_heads=12", "model.num_kv_heads=4", "model.ffn_dim=2048",
              "model.num_layers=12", "model.vocab_capacity=32000", "model.tie_embeddings=true"}) ==
        "accepted");
  CHECK(contains(with({"model.num_heads=3"}), "must be 32, 64 or 128"));
  CHECK(contains(with({"model.num_kv_heads=3"}), "must divide"));
  CHECK(contains(with({"model.ffn_dim=1001"}), "multiple of 8"));
  CHECK(contains(with({"model.vocab_capacity=1000"}), "multiple of 64"));
  CHECK(contains(with({"model.top_k=1"}), "model.top_k = 1"));
  CHECK(with({"model.num_experts=8", "model.top_k=2"}) == "accepted");
}

TEST_CASE_FIXTURE(
    load_fixture,
    "relative paths stand under the data directory, on the command line under the working directory") {
  const std::string file =
      dir.write("node.toml", "[data]\ncorpus = \"corpus\"\nshards = \"https://a.org/x\"\n");
  auto loaded = load({"--config", file});
  REQUIRE(loaded);
  CHECK(loaded->config.data.corpus == data_dir() + "/corpus");
  CHECK(loaded->config.data.shards == "https://a.org/x");
  const std::string here = std::filesystem::current_path().string();
  CHECK(load({"--set", "data.corpus=./a/../b/"})->config.data.corpus == here + "/b");
  variables["HOME"] = "/home/x";
  CHECK(load({"--set", "data.corpus=~/t.txt"})->config.data.corpus == "/home/x/t.txt");
  CHECK(load({"--set", "data.corpus="})->config.data.corpus.empty());
}

TEST_CASE_FIXTURE(load_fixture, "the token comes from flag, file or environment, never from config.json") {
  const std::string token(64, 'a');
  auto by_flag = load({"--token", token});
  REQUIRE(by_flag);
  CHECK(by_flag->token->text == token);
  REQUIRE(by_flag->notes.size() == 1);
  CHECK(contains(by_flag->notes[0], "visible to every user"));
  CHECK_FALSE(contains(by_flag->notes[0], token));

  variables["NEUROSHARD_TOKEN"] = " word-word\n";
  CHECK(load({})->token->text == "word-word");
  CHECK(load({})->token->where == "NEUROSHARD_TOKEN");
  const std::string file = dir.write("token", token + "\n", 0600);
  CHECK(load({"--token-file", file})->token->text == token);
  variables.clear();
  variables["NEUROSHARD_TOKEN_FILE"] = file;
  CHECK(load({})->token->text == token);
  variables.clear();
  CHECK(load({"--config", dir.write("n.toml", "token_file = \"" + file + "\"\n")})->token->where == file);

  for (const mode_t open : {0644, 0640, 0601}) {
    ::chmod(file.c_str(), open);
    CHECK(contains(refused({"--token-file", file}), "must be 0600"));
  }
  CHECK(contains(refused({"--token-file", dir.path() + "/none"}), "cannot be read"));
  CHECK(contains(refused({"--token-file", dir.path()}), "is not a regular file"));
  CHECK(contains(refused({"--token", ""}), "--token: the token must be"));
  CHECK(contains(refused({"--token-file", dir.write("empty", "\n", 0600)}), "the token must be"));
  CHECK(contains(refused({"--token-file", dir.write("big", std::string(10000, 'x'), 0600)}), "larger than"));

  std::filesystem::create_directories(data_dir());
  config_json json;
  json.token = token;
  REQUIRE(write_config_json(data_paths{data_dir()}.config_json(), json));
  CHECK_FALSE(load({})->token.has_value());
}

TEST_CASE_FIXTURE(load_fixture, "what is wrong in config.json is noted and passed over") {
  std::filesystem::create_directories(data_dir());
  const std::string path = data_paths{data_dir()}.config_json();
  const auto put = [&](const std::string& text) { std::ofstream(path) << text; };
  put("{");
  CHECK(contains(load({})->notes.at(0), "config.json: is damaged"));
  put(R"({"settings": {"cpu_threads": 64}})");
  CHECK(contains(load({})->notes.at(0), "is ignored: it must be an integer from 1 to 4"));
  put(R"({"settings": {"port": 64}})");
  CHECK(load({})->config.port == 8000);
  CHECK(contains(load({})->notes.at(0), "cannot be changed through the API"));
  put(R"({"settings": {"training.batch_size": 2}})");
  const std::string file = dir.write("node.toml", "[training]\nmicrobatches = 4\n");
  auto loaded = load({"--config", file});
  REQUIRE(loaded);
  CHECK(loaded->config.training.microbatches == 2);
  CHECK(loaded->notes.size() == 2);
}

TEST_CASE("a reload applies what may change and names the rest") {
  node_config running = default_config();
  node_config fresh = running;
  fresh.log_level = "DEBUG";
  fresh.api.rate_limits.wallet = 0;
  fresh.training.learning_rate = 1e-3;
  fresh.port = 9;
  fresh.model.preset = "nano";
  const reload_outcome outcome = apply_reload(running, fresh);
  CHECK(outcome.applied ==
        std::vector<std::string>{"log_level", "training.learning_rate", "api.rate_limits.wallet"});
  CHECK(outcome.needs_restart == std::vector<std::string>{"port", "model.preset"});
  CHECK(running.log_level == "DEBUG");
  CHECK(running.port == 8000);
  CHECK(apply_reload(running, running).applied.empty());
}

TEST_CASE_FIXTURE(load_fixture, "a node that leaves the architecture open runs what it has adopted") {
  std::filesystem::create_directories(data_dir());
  const auto* nano = model::find_preset("nano");
  REQUIRE(write_adopted_architecture(data_dir(), nano->shape));
  auto loaded = load({});
  REQUIRE(loaded);
  CHECK(loaded->config.model.preset == "auto");
  CHECK(loaded->config.model.hidden_dim == 512);
  CHECK(loaded->config.training.seq_len == 512); // nano's own schedule
  CHECK(loaded->config.data.vocab_size == 32'000);
  CHECK(loaded->config.model.adopted == model::canonical_json(nano->shape));
  CHECK(load({"--set", "model.preset=pico"})->config.model.adopted.empty());
  auto free_form = nano->shape;
  free_form.num_layers = 3;
  free_form.max_seq_len = 128;
  REQUIRE(write_adopted_architecture(data_dir(), free_form));
  loaded = load({});
  REQUIRE(loaded);
  CHECK(loaded->config.model.num_layers == 3);
  CHECK(loaded->config.training.seq_len <= 128);
  std::ofstream(adopted_architecture_path(data_dir())) << "{\"num_layers\": 3}";
  const auto damaged = load({});
  REQUIRE_FALSE(damaged);
  CHECK(damaged.error().code == exit_code::data_directory);
  CHECK(contains(damaged.error().line, "architecture.json: is damaged"));
}
