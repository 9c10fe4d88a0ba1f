#include "kernels/text/dataset.hpp"

#include "tests/kernels/text/random_text.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <atomic>
#include <filesystem>
#include <set>
#include <string>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

struct node {
  test::temporary_directory d;
  dataset_options how;

  node() {
    test::random_source random(40);
    std::string text;
    for (int n = 0; n < 60; ++n) {
      std::string section = random.words(100);
      for (char& c : section)
        if (c == '\n' || c == '\r')
          c = ' ';
      text += section + "x\n\n";
    }
    d.write("corpus/a.txt", text);
    how.corpus = d.path("corpus");
    how.cache_directory = d.path("data_cache");
    how.tokenizer_path = d.path("tokenizer.json");
    how.vocab_size = 400;
  }

  dataset prepare() const {
    auto made = prepare_dataset(how);
    if (!made.ok())
      CHECK(made.status().message() == "");
    REQUIRE(made.ok());
    return std::move(*made);
  }
};

} // namespace

TEST_CASE("the first start learns and builds, the second reuses, and both give the same data") {
  const node n;
  std::set<std::string> phases;
  double last = 0;
  const auto first = prepare_dataset(n.how, {[&](std::string_view phase, double fraction) {
                                               phases.emplace(phase);
                                               CHECK(fraction >= 0);
                                               CHECK(fraction <= 1);
                                               last = fraction;
                                             },
                                             nullptr});
  REQUIRE(first.ok());
  CHECK(first->tokenizer_learned);
  CHECK(first->shards_built);
  CHECK(first->warnings.empty());
  CHECK(first->shards->training_ids().size() == 8);
  CHECK(phases ==
        std::set<std::string>{"check-shards", "count-words", "learn-merges", "tokenize", "write-shards"});
  const std::string shard = n.d.read("data_cache/shard_0.bin");
  const dataset second = n.prepare();
  CHECK(!second.tokenizer_learned);
  CHECK(!second.shards_built);
  CHECK(second.tokens.hash() == first->tokens.hash());
  CHECK(n.d.read("data_cache/shard_0.bin") == shard);
}

TEST_CASE("the shards decode to the corpus") {
  const node n;
  const dataset made = n.prepare();
  std::string text;
  for (size_t i = 0; i < made.shards->training_ids().size(); ++i)
    text += made.tokens.decode_bytes(made.shards->training_tokens(i));
  std::vector<token_id> heldout(made.shards->heldout().size());
  made.shards->heldout().copy(0, heldout);
  const std::string held = made.tokens.decode_bytes(heldout);
  std::string corpus = n.d.read("corpus/a.txt");
  std::erase(corpus, '\n');
  CHECK(corpus.ends_with(held));
  CHECK(text.size() + held.size() == corpus.size());
}

TEST_CASE("a changed corpus is tokenized again with the tokenizer that is there") {
  const node n;
  const dataset first = n.prepare();
  n.d.write("corpus/b.txt", "Another text entirely.\n\nAnd more of it.");
  const dataset second = n.prepare();
  CHECK(!second.tokenizer_learned);
  CHECK(second.shards_built);
  CHECK(second.tokens.hash() == first.tokens.hash());
  CHECK(second.shards->manifest().documents == first.shards->manifest().documents + 2);
}

TEST_CASE("a damaged shard or manifest is built again, with a warning that names it") {
  const node n;
  n.prepare();
  const std::string good = n.d.read("data_cache/shard_2.bin");
  for (const char* name : {"shard_2.bin", "heldout.bin", "manifest.json"}) {
    std::string bytes = n.d.read(std::string("data_cache/") + name);
    bytes[1] ^= 64;
    n.d.write(std::string("data_cache/") + name, bytes);
    const dataset made = n.prepare();
    CHECK(made.shards_built);
    REQUIRE(made.warnings.size() == 1);
    CHECK(made.warnings[0].find(name) != std::string::npos);
    CHECK(n.d.read("data_cache/shard_2.bin") == good);
  }
}

TEST_CASE("a damaged tokenizer stops the start and is not written over") {
  const node n;
  n.d.write("tokenizer.json", "{broken");
  const auto made = prepare_dataset(n.how);
  REQUIRE(!made.ok());
  CHECK(made.status().why() == kernels::code::corrupt);
  CHECK(made.status().message().find("tokenizer.json: not a tokenizer") != std::string::npos);
  CHECK(n.d.read("tokenizer.json") == "{broken");
}

TEST_CASE("a tokenizer larger than the model's vocabulary is refused") {
  node n;
  n.prepare();
  n.how.vocab_size = 300;
  CHECK(prepare_dataset(n.how).status().message().find("data.vocab_size is 300") != std::string::npos);
}

TEST_CASE("what cannot be a corpus is refused in one line") {
  node n;
  n.how.corpus = n.d.path("nowhere");
  CHECK(prepare_dataset(n.how).status().why() == kernels::code::io);
  n.how.corpus.clear();
  CHECK(prepare_dataset(n.how).status().message() == "neither data.corpus nor data.shards is given");
  n.how.corpus = n.d.path("tiny.txt");
  n.d.write("tiny.txt", "a");
  CHECK(prepare_dataset(n.how).status().message().find("tiny.txt: the corpus is too small") !=
        std::string::npos);
  n.d.write("tiny.txt", " \n\n \n");
  CHECK(prepare_dataset(n.how).status().message().find("too small") != std::string::npos);
  n.how.shards = "https://example.org/shards";
  CHECK(prepare_dataset(n.how).status().why() == kernels::code::unsupported);
  n.how.shards = n.d.path("no-shards");
  CHECK(prepare_dataset(n.how).ok() == false);
}

TEST_CASE("a tiny corpus is enough to train on") {
  node n;
  n.how.corpus = n.d.path("tiny.txt");
  n.d.write("tiny.txt", "to be or not to be");
  const dataset made = n.prepare();
  CHECK(made.shards->training_tokens_total() >= 2);
  CHECK(made.shards->heldout().size() >= 2);
}

TEST_CASE("a corpus that passes the storage limit is cut, with a warning, and reused the next time") {
  node n;
  n.how.storage_bytes_max = 4000;
  const dataset made = n.prepare();
  CHECK((made.shards->training_tokens_total() + made.shards->heldout().size()) * 4 <= 4000);
  REQUIRE(made.warnings.size() == 1);
  CHECK(made.warnings[0].find("data.max_storage_mb") != std::string::npos);
  CHECK(!n.prepare().shards_built);
  n.how.storage_bytes_max = 100'000'000;
  CHECK(n.prepare().shards_built);
  n.how.held_out = 0.2;
  CHECK(n.prepare().shards_built);
}

TEST_CASE("ready-made shards are used, without the damaged ones") {
  node n;
  n.prepare();
  node other;
  other.how.corpus.clear();
  other.how.shards = n.how.cache_directory;
  CHECK(prepare_dataset(other.how).status().why() == kernels::code::io); // no tokenizer
  std::filesystem::copy_file(n.how.tokenizer_path, n.d.path("data_cache/tokenizer.json"));
  std::string bytes = n.d.read("data_cache/shard_5.bin");
  bytes[0] ^= 1;
  n.d.write("data_cache/shard_5.bin", bytes);
  const dataset made = other.prepare();
  CHECK(made.shards->training_ids().size() == 7);
  CHECK(made.warnings.size() == 1);
  CHECK(std::filesystem::exists(other.how.tokenizer_path));
  other.d.write("tokenizer.json", tokenizer().to_json());
  CHECK(prepare_dataset(other.how).status().message().find("another tokenizer") != std::string::npos);
}

TEST_CASE("preparing stops when it is cancelled, at any point, and the next start is whole") {
  const node n;
  for (int after = 0; after < 40; ++after) {
    std::atomic<bool> stop{false};
    int reports = 0;
    const auto made =
        prepare_dataset(n.how, {[&](std::string_view, double) { stop = ++reports > after; }, &stop});
    if (made.ok())
      continue;
    CHECK(made.status().message() == "cancelled");
  }
  CHECK(n.prepare().shards->training_ids().size() == 8);
}
