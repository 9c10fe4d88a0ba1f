#include "tests/support/test.hpp"

#include "gateway/config/console.hpp"
#include "gateway/config/data_dir.hpp"
#include "tests/gateway/config/scratch_dir.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

console_progress training_at(int64_t step) {
  console_progress p;
  p.status = "training";
  p.step = step;
  p.last_step = 3000;
  p.loss = 4.8123;
  p.tokens_per_second = 3912.4;
  p.eta_s = 480;
  return p;
}

struct console_fixture {
  std::string written;
  int64_t now = 1000;
  console::options how;
  console_fixture() {
    how.write = [this](std::string_view text) { written += text; };
    how.now_ms = [this] { return now; };
    how.width = 100;
  }
};

} // namespace

TEST_CASE("progress is one line that a person can read") {
  console_progress p = training_at(1200);
  p.validation_loss = 4.9;
  CHECK(render_progress(p, 0) ==
        "step 1,200 of 3,000 | loss 4.812 | validation 4.900 | 3,912 tok/s | ETA 8 min | 0 peers");
  CHECK(render_progress(p, 20) == "step 1,200 of 3,000 ");
  p.status = "draining";
  p.step = 3001;
  p.peers = 1;
  CHECK(render_progress(p, 0) == "draining | step 3,001 | loss 4.812 | validation 4.900 | 1 peer");
  p.tokens_per_second = 1e300;
  p.status = "training";
  CHECK(render_progress(p, 0).size() < 200);
}

TEST_CASE("numbers and durations are rendered for people") {
  CHECK(render_count(0) == "0");
  CHECK(render_count(999) == "999");
  CHECK(render_count(1000) == "1,000");
  CHECK(render_count(-1234567) == "-1,234,567");
  CHECK(render_duration(-5) == "0 s");
  CHECK(render_duration(59) == "59 s");
  CHECK(render_duration(60) == "1 min");
  CHECK(render_duration(3600) == "1 h");
  CHECK(render_duration(12000) == "3 h 20 min");
  CHECK(render_duration(3600 * 52) == "2 d 4 h");
}

TEST_CASE("the printed line finds the token without showing it") {
  scratch_dir scratch;
  console_banner banner;
  banner.version = "0.1.0";
  banner.url = "http://127.0.0.1:8000";
  banner.address = "0x00";
  banner.wallet_file = scratch.path() + "/wallet.json";
  banner.config_json = scratch.path() + "/it's here/config.json";
  std::filesystem::create_directories(scratch.path() + "/it's here");
  config_json content;
  content.url = banner.url;
  content.token = std::string(64, '7');
  REQUIRE(write_config_json(banner.config_json, content));
  const std::string line = render_curl_line(banner);
  CHECK(contains(line, "curl -s http://127.0.0.1:8000/api/v1/inference"));
  CHECK_FALSE(contains(line, content.token));
  // What the shell makes of it, with a curl that only shows its arguments.
  const std::string script = "curl() { printf '%s\\n' \"$@\"; }\n" + line + "\n";
  const std::string file = scratch.write("try.sh", script);
  REQUIRE(std::system(("sh '" + file + "' > '" + scratch.path() + "/out'").c_str()) == 0);
  const std::string out = scratch_dir::read(scratch.path() + "/out");
  CHECK(contains(out, "\nAuthorization: Bearer " + content.token + "\n"));
  CHECK(contains(out, "\n{\"prompt\": \"In the beginning\", \"max_tokens\": 60}\n"));
  const std::string text = render_banner(banner);
  CHECK(contains(text, line));
  CHECK(contains(text, "http://127.0.0.1:8000/api/v1"));
  CHECK(contains(text, banner.wallet_file));
  CHECK_FALSE(contains(text, content.token));
}

TEST_CASE("a sample cannot touch the terminal and is wrapped") {
  const std::string sample =
      render_sample(500, "\x1b[2Jred\xc2\x9b\xff and\x07 \xe2\x82\xac text\n\nnext", 80);
  CHECK(contains(sample, "sample at step 500"));
  CHECK_FALSE(contains(sample, "\x1b"));
  CHECK_FALSE(contains(sample, "\x07"));
  CHECK_FALSE(contains(sample, "\xff"));
  CHECK_FALSE(contains(sample, "\xc2\x9b"));
  CHECK(contains(sample, "\xe2\x82\xac"));
  std::string words;
  for (int i = 0; i < 2000; ++i)
    words += "word ";
  const std::string wrapped = render_sample(1, words, 60);
  CHECK(std::count(wrapped.begin(), wrapped.end(), '\n') == 9);
  std::istringstream lines(wrapped);
  for (std::string line; std::getline(lines, line);)
    CHECK(line.size() <= 60);
  CHECK(render_sample(1, std::string(10000, 'x'), 10).size() < 400);
  CHECK(render_sample(1, "", 80) == "  sample at step 1:\n");
  CHECK(render_sample(1, "\xe2\x82", 80) == "  sample at step 1:\n    ??\n");
}

TEST_CASE("the words are numbered") {
  const std::string text = render_words("a b c d e f g h i j k l");
  CHECK(contains(text, "12. l"));
  CHECK(contains(text, " 1. a"));
}

TEST_CASE_FIXTURE(console_fixture, "a terminal has one updating line, above which others appear") {
  how.terminal = true;
  console screen(how);
  screen.progress(training_at(1));
  CHECK(contains(written, "\r\x1b[Kstep 1 of 3,000"));
  written.clear();
  screen.progress(training_at(2));
  CHECK(written.empty());
  now += 200;
  screen.progress(training_at(3));
  CHECK(contains(written, "step 3"));
  CHECK_FALSE(contains(written, "\n"));
  written.clear();
  screen.line("a warning");
  CHECK(written.starts_with("\r\x1b[Ka warning\n\r\x1b[Kstep 3"));
  written.clear();
  screen.finish();
  CHECK(written == "\n");
  now += 1000;
  screen.progress(training_at(4));
  CHECK(written == "\n");
  screen.line("end");
  CHECK(written == "\nend\n");
}

TEST_CASE_FIXTURE(console_fixture, "without a terminal lines are few") {
  console screen(how);
  screen.progress(training_at(1));
  CHECK(std::count(written.begin(), written.end(), '\n') == 1);
  now += 9999;
  screen.progress(training_at(2));
  CHECK(std::count(written.begin(), written.end(), '\n') == 1);
  now += 1;
  screen.progress(training_at(3));
  CHECK(std::count(written.begin(), written.end(), '\n') == 2);
  // A new validation loss at once, once.
  console_progress p = training_at(4);
  p.validation_loss = 5;
  p.validation_step = 4;
  screen.progress(p);
  screen.progress(p);
  CHECK(std::count(written.begin(), written.end(), '\n') == 3);
  // Standing still is silent.
  now += 100'000;
  screen.progress(p);
  CHECK(std::count(written.begin(), written.end(), '\n') == 3);
  p.status = "draining";
  screen.progress(p);
  CHECK(std::count(written.begin(), written.end(), '\n') == 4);
  CHECK_FALSE(contains(written, "\x1b"));
}

TEST_CASE_FIXTURE(console_fixture, "a quiet console shows only what it is given as lines") {
  how.quiet = true;
  how.terminal = true;
  console screen(how);
  screen.progress(training_at(1));
  CHECK(written.empty());
  screen.block("banner\n");
  CHECK(written == "banner\n");
}
