#include "tests/support/test.hpp"

#include "gateway/config/load_config.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

#include <cstdlib>
#include <random>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

std::string refused(const std::string& text) {
  auto values = read_toml(text, "f");
  if (values)
    return "accepted";
  CHECK(values.error().code == exit_code::bad_configuration);
  CHECK(values.error().line.find('\n') == std::string::npos);
  CHECK(values.error().line.size() < 600);
  return values.error().line;
}

std::string repeated(const std::string& part, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i)
    out += part;
  return out;
}

} // namespace

TEST_CASE("deep nesting is refused, in every spelling") {
  for (const size_t depth : {40UL, 3000UL, 200000UL}) {
    CAPTURE(depth);
    CHECK(refused("x = " + std::string(depth, '[')) != "accepted");
    CHECK(refused("x = " + repeated("{a=", depth)) != "accepted");
    CHECK(refused("x = " + repeated("[\n", depth)) != "accepted");
    CHECK(refused(repeated("a.", depth) + "b = 1") != "accepted");
    CHECK(refused("[" + repeated("a.", depth) + "b]") != "accepted");
    CHECK(refused("[[" + repeated("a.", depth) + "b]]") != "accepted");
    CHECK(refused(repeated("\"#\".", depth) + "b = 1") != "accepted");
    CHECK(refused(repeated("'=x'.", depth) + "b = 1") != "accepted");
    CHECK(refused(repeated("\"[\".", depth) + "b = 1") != "accepted");
  }
}

TEST_CASE("huge files and lines are refused before they are parsed") {
  CHECK(contains(refused(std::string(2 << 20, '\n')), "larger than 1 MiB"));
  CHECK(contains(refused("x = \"" + std::string(10000, 'a') + "\""), "longer than 8,192 bytes"));
}

TEST_CASE("bytes that are no text are refused") {
  CHECK(contains(refused(std::string("port = 1\nnetwork = \"a\0b\"", 24)), "f:2: the file holds a NUL byte"));
  CHECK(refused("network = \"\xff\xfe\"") != "accepted");
  CHECK(refused("network = \"\xc0\x80\"") != "accepted");
  CHECK(refused("network = \"a\x01\"") != "accepted");
  CHECK(refused("\xff") != "accepted");
  CHECK(refused("port = 99999999999999999999") != "accepted");
  CHECK(refused("port = 1\nport = 2") != "accepted");
  CHECK(refused("[training]\n[training]") != "accepted");
  CHECK(refused("port = 1979-05-27") != "accepted");
  CHECK(refused("[[training]]\nenabled = true") != "accepted");
  CHECK(refused("seed_peers = [1, 2]") != "accepted");
  CHECK(refused("seed_peers = [[\"a\"]]") != "accepted");
}

TEST_CASE("an escaped control character in a text is not a value") {
  auto values = read_toml("network = \"a\\u0000b\"", "f");
  if (values) {
    config_value value = (*values)[0].value;
    CHECK(check_value(*(*values)[0].spec, value, default_config(), small_machine()).has_value());
  }
}

TEST_CASE("comments with many dots are comments") {
  CHECK(read_toml("# " + std::string(500, '.') + "\nport = 1\n", "f"));
  CHECK(read_toml("[data]\ncorpus = \"" + repeated("../", 30) + "x\"\n", "f"));
}

TEST_CASE("a mutated configuration file gives values or one line, never anything else") {
  const char* given = std::getenv("NEUROSHARD_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : 20240607;
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937_64 random(seed);
  const std::string sane = render_node_toml();
  std::string active;
  std::istringstream lines(sane);
  for (std::string line; std::getline(lines, line);)
    active += (line.starts_with("#") && line.size() > 1 && line[1] != ' ' && !contains(line, " =  #")
                   ? line.substr(1)
                   : line) +
              "\n";
  const std::string_view alphabet = "[]{}=.,\"'#\n\\\t 019eE+-_xabz\xff\xc3\x80";
  const char* more = std::getenv("NEUROSHARD_FUZZ_ROUNDS");
  const int rounds = more != nullptr ? std::atoi(more) : 400;
  for (int round = 0; round < rounds; ++round) {
    std::string text = active.substr(0, 200 + random() % (active.size() - 200));
    const size_t edits = 1 + random() % 8;
    for (size_t i = 0; i < edits; ++i) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
      case 0:
        text[at] = alphabet[random() % alphabet.size()];
        break;
      case 1:
        text.insert(at, std::string(1 + random() % 20, alphabet[random() % alphabet.size()]));
        break;
      default:
        text.erase(at, 1 + random() % 10);
      }
    }
    auto values = read_toml(text, "f");
    if (!values)
      CHECK(values.error().line.find('\n') == std::string::npos);
  }
}

TEST_CASE("arbitrary texts for any key give a value or nothing") {
  std::mt19937_64 random(7);
  for (const key_spec& row : schema()) {
    for (int round = 0; round < 30; ++round) {
      std::string text;
      for (size_t i = random() % 30; i > 0; --i)
        text += static_cast<char>(random());
      if (auto value = parse_text(row, text))
        check_value(row, *value, default_config(), small_machine());
    }
    CHECK_NOTHROW(parse_text(row, std::string(300000, '[')));
    CHECK_NOTHROW(parse_text(row, "[" + repeated("a.", 100000)));
  }
}
