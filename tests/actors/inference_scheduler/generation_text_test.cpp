#include "actors/inference_scheduler/batch_plan.hpp"
#include "actors/inference_scheduler/completion.hpp"
#include "actors/inference_scheduler/stop_matcher.hpp"
#include "tests/support/test.hpp"

#include <cstdlib>
#include <random>

using namespace neuroshard;

namespace {

int32_t byte_token(char c) {
  return static_cast<int32_t>(text::first_byte_id) + static_cast<unsigned char>(c);
}

struct read_text {
  std::string all;
  std::vector<std::string> frames;
  void operator()(const std::optional<text_frame>& f) {
    if (!f)
      return;
    CHECK(f->index == frames.size());
    frames.push_back(f->text);
    all += f->text;
  }
};

} // namespace

TEST_CASE("a stop string that is spread over pieces is found and cut") {
  stop_matcher m({"STOP"});
  CHECK(m.push("ab S") == "ab ");
  CHECK(m.push("TO").empty());
  CHECK(m.held() == 3);
  CHECK(m.push("P and more").empty());
  CHECK(m.stopped());
  CHECK(m.push("x").empty());
  CHECK(m.finish().empty());
}

TEST_CASE("text that only looked like a stop string comes out in full") {
  stop_matcher m({"aab"});
  CHECK(m.push("aa").empty());
  CHECK(m.push("a") == "a"); // "aa" may still begin it
  CHECK(m.push("c") == "aac");
  CHECK(m.push("aa").empty());
  CHECK(m.finish() == "aa");
  CHECK_FALSE(m.stopped());
}

TEST_CASE("of several stop strings the one that begins first counts") {
  stop_matcher m({"world", "lo w", ""});
  CHECK(m.push("hello world") == "hel");
  CHECK(m.stopped());
}

TEST_CASE("any text cut anywhere gives what a search of the whole gives") {
  const char* set = std::getenv("NEUROSHARD_TEST_SEED");
  const uint64_t seed = set ? std::strtoull(set, nullptr, 10) : 11;
  INFO("NEUROSHARD_TEST_SEED=" << seed);
  std::mt19937_64 random{seed};
  for (int round = 0; round < 2000; ++round) {
    std::string whole;
    for (size_t i = random() % 40; i > 0; --i)
      whole += static_cast<char>('a' + random() % 2);
    std::vector<std::string> stops;
    for (size_t i = 1 + random() % 3; i > 0; --i) {
      std::string stop;
      for (size_t n = 2 + random() % 4; n > 0; --n)
        stop += static_cast<char>('a' + random() % 2);
      stops.push_back(stop);
    }
    // One byte at a time the match that ends first is the one that counts.
    size_t end = std::string::npos;
    size_t begin = whole.size();
    for (const auto& stop : stops) {
      const auto at = whole.find(stop);
      if (at == std::string::npos)
        continue;
      if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
        end = at + stop.size();
        begin = at;
      }
    }
    stop_matcher m(stops);
    std::string out;
    for (const char c : whole)
      out += m.push(std::string_view(&c, 1));
    const bool stopped = m.stopped();
    out += m.finish();
    REQUIRE(stopped == (end != std::string::npos));
    REQUIRE(out == whole.substr(0, begin));
  }
}

TEST_CASE("a token frame never holds half a character, and all frames together are the text") {
  completion c({}, {}, 100);
  read_text read;
  for (const char byte : std::string("a\xc3\xa9\xe2\x82\xac"))
    read(c.accept(byte_token(byte), -1));
  CHECK(read.frames == std::vector<std::string>{"a", "\xc3\xa9", "\xe2\x82\xac"});
  read(c.accept(byte_token('\xe2'), -1));
  read(c.accept(static_cast<int32_t>(text::eos_id), -1));
  CHECK(c.end() == completion_end::end_token);
  CHECK(read.all == "a\xc3\xa9\xe2\x82\xac\xef\xbf\xbd");
  CHECK(c.text() == read.all);
  CHECK(c.count() == 7); // the end token is not counted
  CHECK(c.logprob() == -7);
}

TEST_CASE("log-probabilities of held-back tokens are joined to the frame that shows them") {
  completion c({}, {"xyz"}, 100);
  CHECK_FALSE(c.accept(byte_token('x'), -0.5));
  CHECK_FALSE(c.accept(byte_token('y'), -0.25));
  auto frame = c.accept(byte_token('!'), -1);
  REQUIRE(frame);
  CHECK(frame->text == "xy!");
  CHECK(frame->logprob == -1.75);
}

TEST_CASE("the length limit ends a completion with everything that was held back") {
  completion c({}, {"ab"}, 2);
  CHECK(c.accept(byte_token('-'), 0)->text == "-");
  CHECK(c.accept(byte_token('a'), 0)->text == "a");
  CHECK(c.end() == completion_end::length);
}

TEST_CASE("a stop string ends a completion, cut before it, and its tokens count") {
  completion c({}, {"b"}, 100);
  CHECK(c.accept(byte_token('a'), 0)->text == "a");
  CHECK_FALSE(c.accept(byte_token('b'), 0));
  CHECK(c.end() == completion_end::stop_string);
  CHECK(c.text() == "a");
  CHECK(c.count() == 2);
}

TEST_CASE("short prompts are prefilled together, a long one alone and in chunks") {
  const auto plan = [](std::vector<uint32_t> remaining, size_t rows = 32) {
    return plan_prefill(remaining, rows, 512);
  };
  CHECK(plan({}).rows == 0);
  CHECK(plan({5}, 0).rows == 0);
  auto p = plan({10, 20, 5, 600});
  CHECK(p.rows == 3);
  CHECK(p.length == 20);
  CHECK(p.is_last);
  p = plan({600, 5});
  CHECK(p.rows == 1);
  CHECK(p.length == 512);
  CHECK_FALSE(p.is_last);
  p = plan({512, 1});
  CHECK(p.rows == 1);
  CHECK(p.is_last);
  p = plan(std::vector<uint32_t>(100, 4), 8);
  CHECK(p.rows == 8);
  p = plan({1, 300, 1});
  CHECK(p.rows == 1); // 2 x 300 is too much
}
