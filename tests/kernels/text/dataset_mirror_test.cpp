#include "kernels/text/dataset.hpp"

#include "tests/kernels/text/scripted_mirror.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

struct start {
  test::temporary_directory d;
  std::shared_ptr<test::scripted_mirror> far = std::make_shared<test::scripted_mirror>();
  std::vector<std::string> told;
  dataset_options how;

  start() {
    far->fill(1, 200); // ids below 500, as the tokenizer below has
    std::vector<merge> merges;
    for (token_id i = 0; i < 300; ++i)
      merges.push_back({first_byte_id + i / 256, first_byte_id + i % 256});
    auto made = tokenizer::from_merges(std::move(merges));
    REQUIRE(made.ok());
    far->files["tokenizer.json"] = made->to_json();
    name_tokenizer(*made);
    how.shards = far->url + "/";
    how.cache_directory = d.path("data_cache");
    how.tokenizer_path = d.path("tokenizer.json");
    how.vocab_size = 1000;
    how.mirror = far;
    how.delays.first = std::chrono::milliseconds(1);
    how.delays.most = std::chrono::milliseconds(2);
    how.tell = [this](const std::string& line) { told.push_back(line); };
  }
  void name_tokenizer(const tokenizer& made) {
    auto manifest = shard_manifest::parse(far->files["manifest.json"], "manifest");
    REQUIRE(manifest.ok());
    manifest->tokenizer_hash = kernels::to_hex(made.hash());
    far->files["manifest.json"] = manifest->to_json();
  }
  std::string why() const { return prepare_dataset(how).status().message(); }
};

} // namespace

TEST_CASE("a mirror brings its tokenizer along, and its shards follow") {
  start s;
  const auto made = prepare_dataset(s.how);
  INFO(made.status().message());
  REQUIRE(made.ok());
  CHECK(made->warnings.empty());
  CHECK(made->tokens.vocab_size() == 566);
  CHECK(s.d.read("tokenizer.json") == s.far->files["tokenizer.json"]);
  REQUIRE(made->source != nullptr);
  CHECK(made->source->training_ids().size() == 1);
  made->source->expect(0);
  for (int i = 0; i < 2000 && !made->source->lease(0).ok(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(made->source->lease(0).ok());
}

TEST_CASE("shards made with another tokenizer are refused") {
  start s;
  SUBCASE("than the one that is here") {
    REQUIRE(tokenizer().save(s.how.tokenizer_path).ok());
    const std::string why = s.why();
    CHECK(why.find("http://mirror.test/shards/manifest.json: its shards were made with the tokenizer ") == 0);
    CHECK(why.find("a model keeps its tokenizer") != std::string::npos);
    CHECK(tokenizer::load(s.how.tokenizer_path)->vocab_size() == first_merge_id);
  }
  SUBCASE("than the one that the mirror has") {
    s.far->files["tokenizer.json"] = tokenizer().to_json();
    CHECK(s.why().find("http://mirror.test/shards/tokenizer.json: is the tokenizer ") == 0);
    CHECK(!std::filesystem::exists(s.how.tokenizer_path));
  }
  SUBCASE("or with one that the model has no room for") {
    s.how.vocab_size = 400;
    CHECK(s.why() == "http://mirror.test/shards/tokenizer.json: has 566 tokens, data.vocab_size is 400");
  }
}

TEST_CASE("a mirror that sends nonsense is refused by name") {
  start s;
  s.far->files["manifest.json"] = "<html>It works!</html>";
  CHECK(s.why().find("http://mirror.test/shards/manifest.json: not a manifest of shards: ") == 0);
  s.how.shards = "http://mirror.test/shards?x=1";
  CHECK(s.why().find("data.shards = http://mirror.test/shards?x=1: the URL of a directory is wanted") == 0);
  s.how.mirror = nullptr;
  CHECK(prepare_dataset(s.how).status().why() == kernels::code::unsupported);
}

TEST_CASE("without the mirror a start goes on with the manifest of an earlier one") {
  start s;
  REQUIRE(prepare_dataset(s.how).ok());
  SUBCASE("when it cannot be reached") {
    s.far->reachable = false;
    const auto made = prepare_dataset(s.how);
    REQUIRE(made.ok());
    REQUIRE(made->warnings.size() == 1);
    CHECK(made->warnings[0].find("cannot connect; going on with the manifest of an earlier start") !=
          std::string::npos);
  }
  SUBCASE("when it sends nonsense") {
    s.far->files["manifest.json"] = "{}";
    CHECK(prepare_dataset(s.how).ok());
  }
}

TEST_CASE("a mirror that is not there yet is asked again until it is, or until the end") {
  start s;
  s.far->reachable = false;
  std::atomic<bool> cancel{false};
  progress watch;
  watch.cancel = &cancel;
  SUBCASE("it comes") {
    s.how.tell = [&](const std::string&) { s.far->reachable = true; };
    CHECK(prepare_dataset(s.how, watch).ok());
    CHECK(s.far->count("manifest.json") == 2);
  }
  SUBCASE("the node ends") {
    s.how.tell = [&](const std::string&) { cancel = true; };
    CHECK(prepare_dataset(s.how, watch).status().message() == "cancelled");
  }
}

TEST_CASE("a corpus after a mirror takes the cache over") {
  start s;
  REQUIRE(prepare_dataset(s.how).ok());
  s.how.shards.clear();
  s.how.corpus = s.d.path("corpus.txt");
  s.d.write("corpus.txt", "words and words and more words\n\nand others after them, with more words\n");
  const auto made = prepare_dataset(s.how);
  INFO(made.status().message());
  REQUIRE(made.ok());
  CHECK(made->shards_built);
  CHECK(made->warnings.empty());
}
