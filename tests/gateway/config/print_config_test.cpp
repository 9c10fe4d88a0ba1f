#include "tests/support/test.hpp"

#include "gateway/config/load_config.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE_FIXTURE(load_fixture, "what --print-config prints reads back to the same configuration") {
  const std::string digest(64, 'b');
  for (const auto& arguments : std::vector<std::vector<std::string>>{
           {},
           {"--set", "model.preset=nano"},
           {"--set", "model.preset=custom", "--set", "model.hidden_dim=512", "--set", "model.norm_eps=3e-7"},
           {"--port", "1", "--memory", "300", "--cpu-threads", "2", "--seed-peers", "a:1,[::1]:2",
            "--announce-ip", "1.2.3.4"},
           {"--set", "model.seed=18446744073709551615", "--set", "training.learning_rate=0.1", "--set",
            "data.held_out=0.3"},
           {"--set", "api.tokens=[{sha256 = \"" + digest + "\", scopes = [\"read\", \"wallet\"]}]", "--set",
            "api.tls.cert=/a \\\"b\"", "--set", "api.tls.key=/k"}}) {
    auto first = load(arguments);
    REQUIRE(first);
    const std::string text = print_config(*first, small_machine());
    auto second = load({"--config", dir.write("printed.toml", text)});
    if (!second)
      FAIL(second.error().line);
    CHECK(second->config == first->config);
  }
}

TEST_CASE_FIXTURE(load_fixture, "--print-config shows no secret") {
  variables["NEUROSHARD_TOKEN"] = "correct-horse-battery";
  auto loaded = load({"--set", "data.shards=https://me:hunter2@a.org/x?y=1@2"});
  REQUIRE(loaded);
  CHECK(loaded->config.data.shards == "https://me:hunter2@a.org/x?y=1@2");
  const std::string text = print_config(*loaded, small_machine());
  CHECK_FALSE(contains(text, "correct-horse"));
  CHECK_FALSE(contains(text, "hunter2"));
  CHECK(contains(text, "https://me:***@a.org/x?y=1@2"));
  CHECK(contains(text, "# token: *** (from NEUROSHARD_TOKEN)"));
  CHECK(contains(text, "# cpu_threads: all hardware threads (4)"));
  CHECK(contains(text, "\n[training]\n"));
}

TEST_CASE("a wrong value is not shown with the password in it") {
  load_fixture fixture;
  const std::string line = fixture.refused_file("[data]\nshards = \"https://me:hunter2@a.org/\\u0007\"\n");
  CHECK_FALSE(contains(line, "hunter2"));
}

TEST_CASE("config/node.toml is what the schema makes") {
  const std::string file = scratch_dir::read(std::string(NEUROSHARD_SOURCE_DIR) + "/config/node.toml");
  // To renew it: NEUROSHARD_WRITE_NODE_TOML=config/node.toml with this test.
  if (const char* to = std::getenv("NEUROSHARD_WRITE_NODE_TOML"))
    std::ofstream(to) << render_node_toml();
  else
    CHECK(file == render_node_toml());
}

TEST_CASE_FIXTURE(load_fixture,
                  "config/node.toml changes nothing but the data paths, and its defaults are the defaults") {
  const std::string text = render_node_toml();
  auto plain = load({});
  auto with = load({"--config", dir.write("node.toml", text)});
  REQUIRE(plain);
  if (!with)
    FAIL(with.error().line);
  CHECK(with->config.data.corpus == data_dir() + "/corpus");
  node_config same = with->config;
  same.data.corpus = plain->config.data.corpus;
  CHECK(same == plain->config);

  // Every commented default, put into force, gives the same again.
  std::string active = "";
  std::istringstream lines(text);
  bool shape = false;
  for (std::string line; std::getline(lines, line);) {
    shape = shape ? !line.starts_with("#dtype") : line.starts_with("#num_layers");
    const bool key = line.starts_with("#") && line.size() > 1 && line[1] != ' ' && !contains(line, " =  #");
    if (key && !shape)
      line = line.substr(1);
    CHECK(line.size() <= 130);
    active += line + "\n";
  }
  auto forced = load({"--config", dir.write("forced.toml", active)});
  if (!forced)
    FAIL(forced.error().line);
  CHECK(forced->config == with->config);
}
