#include "kernels/text/data_loader.hpp"

#include "kernels/core/philox.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/text/shard_writer.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <set>
#include <string>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

const std::string node = "00112233445566778899aabbccddeeff";

// One document of the numbers 300, 301, ...: a token tells its place (the document is too even to be
// shuffled).
std::shared_ptr<const shard_set> counting(const test::temporary_directory& d, size_t tokens) {
  auto writer = shard_writer::make({d.path(), 0.1, UINT64_MAX, std::string(64, '0'), ""});
  REQUIRE(writer.ok());
  std::vector<token_id> document(tokens);
  for (size_t i = 0; i < tokens; ++i)
    document[i] = static_cast<token_id>(300 + i);
  REQUIRE(*writer->add(document, "counting"));
  REQUIRE(writer->finish().ok());
  auto set = shard_set::open(d.path(), {});
  REQUIRE(set.ok());
  return std::make_shared<const shard_set>(std::move(*set));
}

data_loader loader_for(std::shared_ptr<const shard_set> set, const std::string& id = node,
                       uint64_t storage = 100'000'000) {
  auto made = data_loader::make(std::move(set), {id, storage});
  REQUIRE(made.ok());
  return std::move(*made);
}

struct batch {
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;
  friend bool operator==(const batch&, const batch&) = default;
};

batch draw(const data_loader& loader, const data_cursor& at, uint64_t step, uint32_t rows, uint32_t seq) {
  batch b{std::vector<int32_t>(rows * seq), std::vector<int32_t>(rows * seq)};
  REQUIRE(loader.rows(at, step, rows, 0, rows, seq, b.ids, b.labels).ok());
  return b;
}

} // namespace

TEST_CASE("a row starts with BOS and its labels are its inputs moved by one") {
  const test::temporary_directory d;
  const auto loader = loader_for(counting(d, 10'000));
  const batch b = draw(loader, {}, 7, 8, 64);
  for (size_t row = 0; row < 8; ++row)
    for (size_t i = 0; i < 64; ++i) {
      CHECK(b.ids[row * 64 + i] == (i == 0 ? 1 : b.labels[row * 64 + i - 1]));
      CHECK(b.labels[row * 64 + i] == b.labels[row * 64] + static_cast<int32_t>(i));
    }
}

TEST_CASE("offsets are those of the specification") {
  const test::temporary_directory d;
  const auto set = counting(d, 10'000);
  const auto loader = loader_for(set);
  // base = SHA-256(node id) mod 8: the last byte decides.
  const auto digest = kernels::sha256::of(node);
  const uint64_t shard = digest[31] % 8;
  CHECK(loader.shard_id({}) == shard);
  CHECK(loader.shards_in_rotation() == 8);
  std::string key_text = node + std::string(8, '\0');
  key_text[node.size()] = static_cast<char>(shard);
  const auto key_digest = kernels::sha256::of(key_text);
  uint64_t key = 0;
  for (size_t i = 8; i-- > 0;)
    key = key << 8 | key_digest[i];
  const auto tokens = set->training_tokens(shard);
  const batch b = draw(loader, {}, 5, 4, 16);
  for (uint64_t row = 0; row < 4; ++row) {
    const uint64_t start = kernels::philox_below(key, 5 * 4 + row, 0, tokens.size() - 16 + 1);
    CHECK(b.labels[row * 16] == static_cast<int32_t>(tokens[start]));
  }
}

TEST_CASE("rows are the same whatever the micro-batches and retries, and differ between steps and nodes") {
  const test::temporary_directory d;
  const auto set = counting(d, 10'000);
  const auto loader = loader_for(set);
  const batch whole = draw(loader, {}, 3, 6, 32);
  CHECK(draw(loader, {}, 3, 6, 32) == whole);
  batch parts{std::vector<int32_t>(6 * 32), std::vector<int32_t>(6 * 32)};
  for (uint32_t first = 0; first < 6; first += 2)
    REQUIRE(loader
                .rows({}, 3, 6, first, 2, 32, std::span(parts.ids).subspan(first * 32, 64),
                      std::span(parts.labels).subspan(first * 32, 64))
                .ok());
  CHECK(parts == whole);
  CHECK(!(draw(loader, {}, 4, 6, 32) == whole));
  CHECK(!(draw(loader_for(set, "ff112233445566778899aabbccddeeff"), {}, 3, 6, 32) == whole));
}

TEST_CASE("a resumed cursor goes on exactly where it was") {
  const test::temporary_directory d;
  const auto set = counting(d, 5'000);
  const auto loader = loader_for(set);
  data_cursor at;
  data_cursor saved;
  std::vector<batch> later;
  for (uint64_t step = 0; step < 60; ++step) {
    if (step == 25)
      saved = *data_cursor::parse(at.to_json());
    if (step >= 25)
      later.push_back(draw(loader, at, step, 4, 32));
    at = loader.advance(at, 4 * 32);
  }
  const auto again = loader_for(set);
  for (uint64_t step = 25; step < 60; ++step) {
    CHECK(draw(again, saved, step, 4, 32) == later[step - 25]);
    saved = again.advance(saved, 4 * 32);
  }
  CHECK(saved == at);
}

TEST_CASE("the cursor moves on when a shard is used up and comes round to all") {
  const test::temporary_directory d;
  const auto set = counting(d, 5'000);
  const auto loader = loader_for(set);
  data_cursor at;
  std::set<uint64_t> seen;
  for (int shard = 0; shard < 8; ++shard) {
    seen.insert(loader.shard_id(at));
    const uint64_t tokens = set->training_tokens(loader.place(at)).size();
    at = loader.advance(at, tokens - 1);
    CHECK(at.tokens_drawn == tokens - 1);
    at = loader.advance(at, 1);
    CHECK(at.tokens_drawn == 0);
  }
  CHECK(seen.size() == 8);
  CHECK(at == data_cursor{1, 0, 0});
  // Two shards fit: rotation r uses S[(base + 2 r + i) mod 8].
  const auto two = loader_for(set, node, set->shard_bytes_max() * 2 + 1);
  CHECK(two.shards_in_rotation() == 2);
  CHECK(two.place({3, 1, 0}) == (two.place({}) + 7) % 8);
  CHECK(loader_for(set, node, 1).shards_in_rotation() == 1);
}

TEST_CASE("held-out text is never drawn") {
  const test::temporary_directory d;
  const auto set = counting(d, 2'000);
  const auto loader = loader_for(set);
  std::vector<token_id> first(1);
  set->heldout().copy(0, first);
  int32_t highest = 0;
  data_cursor at;
  for (uint64_t step = 0; step < 400; ++step) {
    for (const int32_t label : draw(loader, at, step, 4, 16).labels)
      highest = std::max(highest, label);
    at = loader.advance(at, 64);
  }
  CHECK(highest < static_cast<int32_t>(first[0]));
  CHECK(highest >
        static_cast<int32_t>(first[0]) - 40); // the windows reach up to the end of the training text
}

TEST_CASE("a shard shorter than a row is padded") {
  const test::temporary_directory d;
  const auto set = counting(d, 50);
  const auto loader = loader_for(set);
  const auto tokens = set->training_tokens(loader.place({}));
  REQUIRE(tokens.size() < 16);
  const batch b = draw(loader, {}, 0, 2, 16);
  for (size_t i = 0; i < 16; ++i) {
    CHECK(b.labels[i] == (i < tokens.size() ? static_cast<int32_t>(tokens[i]) : -100));
    CHECK(b.ids[i] == (i == 0 ? 1 : i < tokens.size() ? static_cast<int32_t>(tokens[i - 1]) : 0));
  }
}

TEST_CASE("held-out windows are fixed and lie a thirty-second apart") {
  const test::temporary_directory d;
  const auto set = counting(d, 10'000);
  const auto loader = loader_for(set);
  std::vector<token_id> heldout(set->heldout().size());
  set->heldout().copy(0, heldout);
  std::vector<int32_t> ids(40), labels(40);
  for (uint32_t window = 0; window < 32; ++window) {
    REQUIRE(loader.heldout_window(window, ids, labels).ok());
    const size_t start = window * (heldout.size() / 32);
    for (size_t i = 0; i < 40; ++i) {
      CHECK(labels[i] == (start + i < heldout.size() ? static_cast<int32_t>(heldout[start + i]) : -100));
      CHECK(ids[i] == (i == 0 ? 1 : start + i < heldout.size() ? labels[i - 1] : 0));
    }
  }
  CHECK(!loader.heldout_window(32, ids, labels).ok());
  CHECK(!loader.heldout_window(0, ids, std::span(labels).first(39)).ok());
}

TEST_CASE("wrong ranges, sizes and cursors are refused") {
  const test::temporary_directory d;
  const auto set = counting(d, 1'000);
  const auto loader = loader_for(set);
  std::vector<int32_t> ids(64), labels(64);
  CHECK(!loader.rows({}, 0, 4, 3, 2, 32, ids, labels).ok());
  CHECK(!loader.rows({}, 0, 4, 0, 2, 31, ids, labels).ok());
  CHECK(!loader.rows({}, 0, 4, 0, 2, 0, {}, {}).ok());
  CHECK(loader.rows({~0ULL, ~0ULL, ~0ULL}, ~0ULL, 4, 0, 2, 32, ids, labels).ok());
  CHECK(!data_loader::make(set, {"", 1}).ok());
  for (const char* bad :
       {"", "{}", "[]", "{\"rotation\":1,\"index\":2}", "{\"rotation\":-1,\"index\":2,\"tokens_drawn\":3}",
        "{\"rotation\":1.5,\"index\":2,\"tokens_drawn\":3}"})
    CHECK(data_cursor::parse(bad).status().why() == kernels::code::corrupt);
}
