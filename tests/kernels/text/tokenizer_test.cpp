#include "kernels/text/tokenizer.hpp"

#include "kernels/text/bpe_learner.hpp"
#include "kernels/text/files.hpp"
#include "kernels/text/splitter.hpp"
#include "tests/kernels/text/random_text.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

using ids = std::vector<token_id>;

ids bytes_of(std::string_view piece) {
  ids out;
  for (const char c : piece)
    out.push_back(first_byte_id + static_cast<uint8_t>(c));
  return out;
}

void replace_pair(ids& piece, const merge& pair, token_id by) {
  ids out;
  for (size_t i = 0; i < piece.size(); ++i) {
    if (i + 1 < piece.size() && piece[i] == pair.left && piece[i + 1] == pair.right) {
      out.push_back(by);
      ++i;
    } else {
      out.push_back(piece[i]);
    }
  }
  piece = out;
}

// The rules read literally: take the lowest merge that is present, replace it from the left, start again.
ids slow_encode(std::string_view text, std::span<const merge> merges) {
  ids out;
  for_each_piece(text, [&](std::string_view bytes) {
    ids piece = bytes_of(bytes);
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t m = 0; m < merges.size() && !changed; ++m) {
        const size_t before = piece.size();
        replace_pair(piece, merges[m], static_cast<token_id>(first_merge_id + m));
        changed = piece.size() != before;
      }
    }
    out.insert(out.end(), piece.begin(), piece.end());
  });
  return out;
}

std::vector<merge> slow_learn(const std::string& text, size_t wanted) {
  std::vector<ids> pieces;
  for_each_piece(text, [&](std::string_view piece) { pieces.push_back(bytes_of(piece)); });
  std::vector<merge> merges;
  while (merges.size() < wanted) {
    std::map<std::pair<token_id, token_id>, uint64_t>
        counts; // ordered: the first maximum is the smallest pair
    for (const ids& piece : pieces)
      for (size_t i = 0; i + 1 < piece.size(); ++i)
        ++counts[{piece[i], piece[i + 1]}];
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < 2)
      break;
    const merge pair{best->first.first, best->first.second};
    for (ids& piece : pieces)
      replace_pair(piece, pair, static_cast<token_id>(first_merge_id + merges.size()));
    merges.push_back(pair);
  }
  return merges;
}

tokenizer learn(std::string_view text, uint32_t vocab_size) {
  bpe_learner learner;
  learner.add(text);
  auto made = learner.learn(vocab_size);
  REQUIRE(made.ok());
  return *made;
}

std::vector<merge> list(const tokenizer& t) {
  return {t.merges().begin(), t.merges().end()};
}

void check_refused(const std::string& json, const std::string& reason) {
  const auto parsed = tokenizer::parse(json, "tok.json");
  REQUIRE(!parsed.ok());
  CHECK(parsed.status().why() == kernels::code::corrupt);
  const std::string message = parsed.status().message();
  CHECK(message.starts_with("tok.json: "));
  CHECK(message.find('\n') == std::string::npos);
  if (message.find(reason) == std::string::npos)
    CHECK(message == reason); // shows both
}

} // namespace

TEST_CASE("without merges a byte is id 10 + byte") {
  const tokenizer t;
  CHECK(t.vocab_size() == 266);
  CHECK(t.encode(std::string("\0A\xFF", 3)) == ids{10, 75, 265});
  CHECK(t.encode("").empty());
  CHECK(kernels::to_hex(t.hash()) == kernels::to_hex(kernels::sha256::of("")));
}

TEST_CASE("any bytes come back from their ids") {
  test::random_source random(10);
  const tokenizer t = learn(random.words(5000), 600);
  CHECK(t.vocab_size() > 300);
  for (int round = 0; round < 400; ++round) {
    const std::string input =
        round % 3 == 0 ? random.words(random.below(300)) : random.bytes(random.below(400));
    const ids encoded = t.encode(input);
    CHECK(t.decode_bytes(encoded) == input);
    CHECK(std::all_of(encoded.begin(), encoded.end(),
                      [&](token_id id) { return id >= 10 && id < t.vocab_size(); }));
  }
}

TEST_CASE("characters of all planes come back as text") {
  const tokenizer t = learn("\xE4\xB8\xAD\xE4\xB8\xAD\xE4\xB8\xAD \xF0\x9F\x98\x80\xF0\x9F\x98\x80", 300);
  std::string input;
  for (uint32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 97)
    if (c < 0xD800 || c > 0xDFFF)
      input += test::utf8_of(c);
  CHECK(t.decode_text(t.encode(input)) == input);
}

TEST_CASE("text that looks like a special is plain bytes") {
  const tokenizer t;
  for (const std::string input : {"<|eos|>", "<|pad|>", "<|bos|>", "<|unk|>"})
    CHECK(t.encode(input) == bytes_of(input));
  CHECK(t.decode_bytes(ids{bos_id, 10 + 'a', eos_id, pad_id, unk_id, 7, 10 + 'b', 266, 4'000'000'000U}) ==
        "ab");
  CHECK(t.token_bytes(eos_id).empty());
}

TEST_CASE("encoding equals the slow obvious way") {
  test::random_source random(11);
  for (int round = 0; round < 12; ++round) {
    const tokenizer t = learn(random.words(400), 266 + 10 + static_cast<uint32_t>(random.below(120)));
    for (int line = 0; line < 10; ++line) {
      const std::string input = random.words(random.below(60));
      const ids expected = slow_encode(input, t.merges());
      CHECK(t.encode(input) == expected);
      CHECK(t.encode(input) == expected); // out of the cache
    }
  }
}

TEST_CASE("long pieces are encoded the same way") {
  test::random_source random(12);
  std::string letters;
  for (int i = 0; i < 3000; ++i)
    letters += static_cast<char>('a' + random.below(3));
  const tokenizer t = learn(letters.substr(0, 1500), 340);
  for (const size_t length : {1U, 2U, 31U, 32U, 33U, 47U, 48U, 49U, 50U, 500U, 3000U})
    CHECK(t.encode(letters.substr(0, length)) == slow_encode(letters.substr(0, length), t.merges()));
  const tokenizer doubling = learn(std::string(512, 'x'), 400);
  for (const size_t length : {63U, 64U, 65U, 511U, 1000U})
    CHECK(doubling.encode(std::string(length, 'x')) ==
          slow_encode(std::string(length, 'x'), doubling.merges()));
}

TEST_CASE("a megabyte without a break is encoded") {
  const tokenizer t = learn(std::string(64, 'a'), 400);
  const std::string input(1'000'000, 'a');
  CHECK(t.decode_bytes(t.encode(input)) == input);
}

TEST_CASE("learning equals the slow obvious way") {
  test::random_source random(13);
  for (int round = 0; round < 15; ++round) {
    const std::string input = random.words(50 + random.below(600));
    const size_t wanted = random.below(200);
    CHECK(list(learn(input, static_cast<uint32_t>(266 + wanted))) == slow_learn(input, wanted));
  }
  std::string letters;
  for (int i = 0; i < 400; ++i)
    letters += static_cast<char>('a' + random.below(2));
  CHECK(list(learn(letters, 300)) == slow_learn(letters, 34));
}

TEST_CASE("ties go to the smaller pair and a pair seen once is not merged") {
  CHECK(list(learn("ab ab cd cd", 267)) ==
        std::vector<merge>{{10 + ' ', 10 + 'c'}}); // " c" and "cd" twice, "ab" twice
  CHECK(list(learn("abc", 400)).empty());
  CHECK(list(learn("", 400)).empty());
  CHECK(list(learn("zz", 400)).empty());
  CHECK(list(learn("zzz", 400)) == std::vector<merge>{{10 + 'z', 10 + 'z'}});
}

TEST_CASE("a longer learning only appends merges") {
  test::random_source random(14);
  const std::string input = random.words(2000);
  const auto few = list(learn(input, 300));
  const auto many = list(learn(input, 400));
  REQUIRE(many.size() > few.size());
  CHECK(std::equal(few.begin(), few.end(), many.begin()));
}

TEST_CASE("no token grows beyond its bound") {
  const tokenizer t = learn(std::string(20'000, 'a'), 2000);
  for (token_id id = first_merge_id; id < t.vocab_size(); ++id)
    REQUIRE(t.token_bytes(id).size() <= token_bytes_max);
}

TEST_CASE("learning stops when it is told to, and reports how far it is") {
  std::atomic<bool> stop{true};
  bpe_learner learner;
  learner.add("abab abab");
  const auto made = learner.learn(400, {{}, &stop});
  REQUIRE(!made.ok());
  CHECK(made.status().message() == "cancelled");
  double last = -1;
  bpe_learner other;
  other.add("abab abab");
  CHECK(other
            .learn(400, {[&](std::string_view phase, double f) { last = phase == "learn-merges" ? f : -1; },
                         nullptr})
            .ok());
  CHECK(last == 1.0);
  CHECK(!bpe_learner{}.learn(265).ok());
  CHECK(!bpe_learner{}.learn(10'000'001).ok());
}

TEST_CASE("a saved tokenizer loads as the same one") {
  const test::temporary_directory directory;
  test::random_source random(15);
  const tokenizer t = learn(random.words(3000), 500);
  const std::string path = directory.path("tokenizer.json");
  REQUIRE(t.save(path).ok());
  const auto loaded = tokenizer::load(path);
  REQUIRE(loaded.ok());
  CHECK(list(*loaded) == list(t));
  CHECK(loaded->hash() == t.hash());
  CHECK(tokenizer::parse(tokenizer().to_json(), "empty").ok());
}

TEST_CASE("the hash is SHA-256 over little-endian triples") {
  const auto t = tokenizer::from_merges({{10, 11}, {266, 265}});
  REQUIRE(t.ok());
  const std::string bytes("\x0A\0\0\0\x0B\0\0\0\x0A\x01\0\0\x0A\x01\0\0\x09\x01\0\0\x0B\x01\0\0", 24);
  CHECK(t->hash() == kernels::sha256::of(bytes));
}

TEST_CASE("further fields of a tokenizer file are passed over") {
  const auto t =
      tokenizer::parse(R"({"merges":{"266_75":267,"75_76":266},"next_merge_id":268,"vocab_size":268,
    "sources_contributed":{"a":[1,{"b":null}]},"total_tokens_processed":1.5e3,"merge_to_tokens":{"266":[75,76]}})",
                       "t");
  REQUIRE(t.ok());
  CHECK(t->token_bytes(267) == "ABA");
}

TEST_CASE("a hostile tokenizer file gives one line that names it") {
  const auto with = [](const std::string& merges, const std::string& next) {
    return "{\"vocab_size\":" + next + ",\"next_merge_id\":" + next + ",\"merges\":" + merges + "}";
  };
  check_refused("", "empty");
  check_refused("{", "byte 1");
  check_refused("[]", "no JSON object");
  check_refused("7", "no JSON object");
  check_refused(std::string(1'000'000, '['), "no JSON object");
  check_refused("{\"x\":" + std::string(1'000'000, '['), "too deeply");
  check_refused("{}", "needs \"vocab_size\"");
  check_refused(with("{}", "267"), "next_merge_id is 267");
  check_refused(with("{\"10_11\":266}", "266"), "next_merge_id is 266");
  check_refused(with("{\"10_11\":267}", "268"), "not dense");
  check_refused(with("{\"10_11\":266,\"12_13\":266}", "268"), "not dense");
  check_refused(with("{\"10_11\":266,\"10_11\":267}", "268"), "repeats");
  check_refused(with("{\"10_266\":266}", "267"), "later token");
  check_refused(with("{\"10_9\":266}", "267"), "special");
  check_refused(with("{\"1011\":266}", "267"), "no pair of ids");
  check_refused(with("{\"010_11\":266}", "267"), "no pair of ids");
  check_refused(with("{\"10_-1\":266}", "267"), "no pair of ids");
  check_refused(with("{\"10_99999999999\":266}", "267"), "no pair of ids");
  check_refused(with("{\"10_11\":-266}", "267"), "no object of ids");
  check_refused(with("{\"10_11\":266.0}", "267"), "no object of ids");
  check_refused(with("{\"10_11\":1e400}", "267"), "byte");
  check_refused(with("[266]", "267"), "no object of ids");
  check_refused("{\"vocab_size\":266,\"vocab_size\":266,\"next_merge_id\":266,\"merges\":{}}", "twice");
  check_refused("{\"vocab_size\":266,\"next_merge_id\":266,\"merges\":{},\"merges\":{}}", "twice");
  check_refused("{\"vocab_size\":20000000,\"next_merge_id\":266,\"merges\":{}}",
                "allowed are 266 to 10000000");
  check_refused("{\"vocab_size\":\"266\",\"next_merge_id\":266,\"merges\":{}}", "no whole number");
  check_refused(with("{}", "266") + "x", "byte");
  check_refused(with("{}", "266") + std::string(1, '\0') + "x", "NUL");
  std::string doubling = "{\"10_10\":266";
  for (int id = 267; id < 300; ++id)
    doubling += ",\"" + std::to_string(id - 1) + "_" + std::to_string(id - 1) + "\":" + std::to_string(id);
  check_refused(with(doubling + "}", "300"), "longer than a token may be");

  const test::temporary_directory directory;
  const auto missing = tokenizer::load(directory.path("none.json"));
  REQUIRE(!missing.ok());
  CHECK(missing.status().why() == kernels::code::io);
  CHECK(missing.status().message().find("none.json") != std::string::npos);
  CHECK(tokenizer::load(directory.path(".")).status().why() == kernels::code::io);
}

TEST_CASE("random damage to a tokenizer file never gives another tokenizer unnoticed and never crashes") {
  test::random_source random(16);
  const std::string json = learn(random.words(300), 300).to_json();
  for (int round = 0; round < 500; ++round) {
    std::string damaged = json;
    damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
    if (round % 3 == 0)
      damaged.resize(random.below(damaged.size()));
    const auto parsed = tokenizer::parse(damaged, "t");
    if (parsed.ok())
      CHECK(parsed->vocab_size() >= first_merge_id);
  }
}

TEST_CASE("many threads share one tokenizer") {
  test::random_source random(17);
  const tokenizer t = learn(random.words(2000), 500);
  std::vector<std::string> lines;
  std::vector<ids> expected;
  for (int i = 0; i < 200; ++i) {
    lines.push_back(random.words(50));
    expected.push_back(t.encode(lines.back()));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; ++n)
    threads.emplace_back([&, copy = t] {
      for (size_t i = 0; i < lines.size(); ++i)
        if (copy.encode(lines[i]) != expected[i])
          ++wrong;
    });
  for (auto& thread : threads)
    thread.join();
  CHECK(wrong == 0);
}
