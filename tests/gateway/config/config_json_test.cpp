#include "tests/support/test.hpp"

#include "gateway/config/data_dir.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE("config.json keeps what SDKs read and what PATCH changed") {
  scratch_dir scratch;
  const std::string path = scratch.path() + "/config.json";
  config_json content;
  content.url = "http://127.0.0.1:8000";
  content.token = "a \"word\" with \\ in it";
  content.timeout_s = 2.5;
  content.settings = {
      {"training.enabled", false}, {"training.batch_size", int64_t{3}}, {"training.learning_rate", 0.1}};
  REQUIRE(write_config_json(path, content));
  CHECK(scratch_dir::mode(path) == 0600);
  const auto read = read_config_json(path);
  REQUIRE(read);
  REQUIRE(read->has_value());
  CHECK((*read)->url == content.url);
  CHECK((*read)->token == content.token);
  CHECK((*read)->timeout_s == 2.5);
  CHECK((*read)->settings == content.settings);
}

TEST_CASE("no config.json is no error") {
  scratch_dir scratch;
  const auto read = read_config_json(scratch.path() + "/config.json");
  REQUIRE(read);
  CHECK_FALSE(read->has_value());
}

TEST_CASE("a damaged config.json is named, and its content is not shown") {
  scratch_dir scratch;
  std::string deep;
  for (int i = 0; i < 100000; ++i)
    deep += "[";
  for (const std::string& text :
       {std::string(""), std::string("{"), std::string("[]"), std::string("{\"token\": \"secret"), deep,
        std::string("{\"settings\": 3}"), std::string("{\"settings\": {\"no.such\": 1}}"),
        std::string("{\"settings\": {\"training.batch_size\": \"secret\"}}"),
        std::string("{\"settings\": {\"training.batch_size\": 1.5}}"), std::string("{\"url\": \"\xff\"}"),
        std::string(300000, ' ')}) {
    const auto read = read_config_json(scratch.write("config.json", text));
    REQUIRE_FALSE(read);
    CHECK(contains(read.error().line, "config.json"));
    CHECK_FALSE(contains(read.error().line, "secret"));
    CHECK(read.error().line.find('\n') == std::string::npos);
  }
}
