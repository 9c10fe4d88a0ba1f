#include "tests/support/test.hpp"

#include "gateway/config/logging.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE("lines go to the file, warnings also to the person") {
  scratch_dir scratch;
  std::vector<std::string> seen;
  log_options options;
  options.file = scratch.path() + "/node.log";
  options.warnings_only_on_stderr = true;
  options.to_console = [&](std::string_view line) { seen.emplace_back(line); };
  auto log = logging::start(options);
  REQUIRE(log);
  log::info("trainer", "step-done step={}", 7);
  log::debug("trainer", "hidden");
  log::warn("ledger", "slow ms={}", 9);
  log->flush();
  const std::string text = scratch_dir::read(options.file);
  CHECK(contains(text, "info trainer: step-done step=7\n"));
  CHECK(contains(text, "warning ledger: slow ms=9\n"));
  CHECK_FALSE(contains(text, "hidden"));
  REQUIRE(seen.size() == 1);
  CHECK(contains(seen[0], "ledger: slow ms=9"));
  CHECK(seen[0].find('\n') == std::string::npos);

  log->set_level("DEBUG");
  log::debug("trainer", "shown");
  log->set_level("ERROR");
  log::warn("trainer", "unseen");
  log->flush();
  CHECK(contains(scratch_dir::read(options.file), "shown"));
  CHECK_FALSE(contains(scratch_dir::read(options.file), "unseen"));
}

TEST_CASE("text from outside cannot forge a line") {
  scratch_dir scratch;
  log_options options;
  options.file = scratch.path() + "/node.log";
  options.to_stderr = false;
  auto log = logging::start(options);
  REQUIRE(log);
  log::info("http", "path={}", "/x\r\n2030-01-01 error ledger: all is lost\x1b[2J");
  log->flush();
  const std::string text = scratch_dir::read(options.file);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK_FALSE(contains(text, "\x1b"));
}

TEST_CASE("the file rotates and is opened anew on request") {
  scratch_dir scratch;
  log_options options;
  options.file = scratch.path() + "/node.log";
  options.to_stderr = false;
  options.file_bytes = 2000;
  options.files = 3;
  auto log = logging::start(options);
  REQUIRE(log);
  for (int i = 0; i < 200; ++i)
    log::info("test", "line {}", i);
  log->flush();
  CHECK(std::filesystem::exists(scratch.path() + "/node.2.log"));
  CHECK_FALSE(std::filesystem::exists(scratch.path() + "/node.3.log"));
  CHECK(std::filesystem::file_size(options.file) <= 2000);

  // Lines over the border of files come in order.
  const auto tail = last_log_lines(options.file, 60);
  REQUIRE(tail);
  CHECK(std::count(tail->begin(), tail->end(), '\n') == 60);
  CHECK(contains(*tail, "line 140\n"));
  CHECK_FALSE(contains(*tail, "line 139\n"));
  CHECK(tail->ends_with("line 199\n"));

  std::filesystem::rename(options.file, scratch.path() + "/moved");
  REQUIRE(log->reopen());
  log::warn("test", "after");
  CHECK(contains(scratch_dir::read(options.file), "after"));
}

TEST_CASE("a log that cannot be opened is an error, and so is one that is not there") {
  scratch_dir scratch;
  log_options options;
  options.file = scratch.write("file", "") + "/node.log";
  const auto log = logging::start(options);
  REQUIRE_FALSE(log);
  CHECK(log.error().code == exit_code::data_directory);
  CHECK_FALSE(last_log_lines(scratch.path() + "/none.log", 5));
  CHECK(*last_log_lines(scratch.write("short.log", "a\nb\n"), 5) == "a\nb\n");
  CHECK(*last_log_lines(scratch.write("short.log", "a\nb\n"), 1) == "b\n");
  CHECK(last_log_lines(scratch.write("empty.log", ""), 1)->empty());
}
