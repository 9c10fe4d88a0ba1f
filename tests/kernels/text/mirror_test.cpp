#include "kernels/text/mirror.hpp"

#include "kernels/text/data_loader.hpp"
#include "tests/kernels/text/scripted_mirror.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

using ids = std::vector<token_id>;
using std::chrono::seconds;
constexpr std::chrono::steady_clock::time_point noon{seconds(1000)};

struct bench {
  test::temporary_directory d;
  std::shared_ptr<test::scripted_mirror> far = std::make_shared<test::scripted_mirror>();
  shard_mirror::options how;
  std::vector<std::string> told;
  std::shared_ptr<shard_mirror> mirror;

  bench(size_t shards, size_t tokens, uint64_t storage_bytes) {
    how.manifest = far->fill(shards, tokens);
    how.url = far->url;
    how.directory = d.path("data_cache");
    how.held_out = 0.1;
    how.storage_bytes_max = storage_bytes;
    how.from = far;
    how.tell = [this](const std::string& line) { told.push_back(line); };
    open();
  }
  void open() {
    mirror.reset();
    auto made = shard_mirror::open(how);
    INFO(made.status().message());
    REQUIRE(made.ok());
    mirror = *made;
  }
  void work(std::chrono::steady_clock::time_point now = noon) {
    for (int i = 0; i < 200 && mirror->work_once(now); ++i) {
    }
  }
  bool here(size_t place) const { return mirror->presence(place) == shard_presence::here; }
  std::set<uint64_t> shards_here() const {
    std::set<uint64_t> found;
    for (size_t i = 0; i < mirror->training_ids().size(); ++i)
      if (here(i))
        found.insert(mirror->training_ids()[i]);
    return found;
  }
  uint64_t cache_bytes() const {
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(how.directory))
      bytes += entry.file_size();
    return bytes;
  }
};

ids all(const token_view& view) {
  ids out(view.size());
  view.copy(0, out);
  return out;
}

ids leased(const shard_source& from, size_t place) {
  const auto lease = from.lease(place);
  INFO(lease.status().message());
  REQUIRE(lease.ok());
  return {lease->tokens.begin(), lease->tokens.end()};
}

// What a directory with the same files gives.
shard_set local(const bench& b, const test::temporary_directory& d) {
  for (const auto& [name, bytes] : b.far->files)
    d.write(name, bytes);
  shard_set::options opening;
  opening.held_out = b.how.held_out;
  auto set = shard_set::open(d.path(), opening);
  REQUIRE(set.ok());
  return std::move(*set);
}

constexpr size_t tokens = 1000;
constexpr uint64_t shard_bytes = tokens * 4;

} // namespace

TEST_CASE("a mirror gives the shards and the held-out tokens that a directory gives") {
  for (const size_t count : {5, 24}) {
    CAPTURE(count);
    bench b(count, tokens, 1'000'000);
    CHECK(b.mirror->held_out().size() == 0);
    b.mirror->expect(0);
    b.work();
    const test::temporary_directory d;
    const shard_set set = local(b, d);
    REQUIRE(b.mirror->training_ids().size() == set.training_ids().size());
    for (size_t i = 0; i < set.training_ids().size(); ++i) {
      CHECK(b.mirror->training_ids()[i] == set.training_ids()[i]);
      CHECK(b.mirror->training_size(i) == set.training_tokens(i).size());
      CHECK(leased(*b.mirror, i) == ids(set.training_tokens(i).begin(), set.training_tokens(i).end()));
    }
    CHECK(all(b.mirror->held_out()) == all(set.heldout()));
    CHECK(b.told.empty());
    CHECK(b.far->count("shard_0.bin") == 1);
  }
}

TEST_CASE("nothing of what is held out is fetched twice or drawn") {
  bench b(24, tokens, 1'000'000);
  for (const uint64_t id : b.mirror->training_ids())
    CHECK(id != 23);
  b.mirror->expect(3);
  b.work();
  CHECK(b.far->requests.front().file == "shard_23.bin"); // before training begins
  CHECK(b.far->requests[1].file == "shard_3.bin");
  CHECK(b.far->count("shard_23.bin") == 1);
}

TEST_CASE("only what has room is here, and never more than the storage limit") {
  bench b(24, tokens, 5 * shard_bytes);
  CHECK(b.mirror->room() == 4); // and the held-out shard
  b.mirror->expect(21);
  b.work();
  CHECK(b.shards_here() == std::set<uint64_t>{21, 22, 0, 1});
  CHECK(b.cache_bytes() <= 5 * shard_bytes);
  SUBCASE("moving on fetches the next and removes the one used longest ago") {
    const auto kept = b.mirror->lease(21); // by a reader that is not done
    REQUIRE(kept.ok());
    b.mirror->expect(22);
    b.work();
    CHECK(b.shards_here() == std::set<uint64_t>{22, 0, 1, 2});
    CHECK(b.cache_bytes() <= 5 * shard_bytes);
    CHECK(kept->tokens[5] == 300 + 21'000 + 5);
  }
  SUBCASE("an earlier cache is used as it is, and what has no room is removed") {
    b.far->requests.clear();
    b.how.storage_bytes_max = 3 * shard_bytes;
    b.d.write("data_cache/shard_77.bin", "of another time");
    b.d.write("data_cache/tokens.tmp1", "of another time");
    b.d.write("data_cache/novels.deb", "not ours");
    b.open();
    b.mirror->expect(0);
    b.work();
    CHECK(b.far->requests.empty());
    b.mirror->expect(1);
    b.work();
    CHECK(b.shards_here() == std::set<uint64_t>{1, 2});
    CHECK(b.far->requests == std::vector<test::scripted_mirror::request>{{"shard_2.bin", 0}});
    CHECK(!std::filesystem::exists(b.d.path("data_cache/shard_77.bin")));
    CHECK(!std::filesystem::exists(b.d.path("data_cache/tokens.tmp1")));
    CHECK(b.d.read("data_cache/novels.deb") == "not ours");
  }
}

TEST_CASE("tails of shards that have no room are held out all the same, and fetched once") {
  bench b(6, tokens, 3 * shard_bytes);
  CHECK(b.mirror->room() == 2); // 6 tails of 400 bytes beside them
  b.mirror->expect(4);
  b.work();
  CHECK(b.shards_here() == std::set<uint64_t>{4, 5});
  CHECK(b.cache_bytes() <= 3 * shard_bytes);
  const test::temporary_directory d;
  const ids expected = all(local(b, d).heldout());
  CHECK(all(b.mirror->held_out()) == expected);
  b.far->requests.clear();
  b.open();
  CHECK(all(b.mirror->held_out()) == expected);
  SUBCASE("but not when another share is held out, or the tail is damaged") {
    b.how.held_out = 0.2;
    b.open();
    CHECK(b.mirror->held_out().size() == 0);
    b.how.held_out = 0.1;
    std::string tail = b.d.read("data_cache/tail_0.bin");
    tail.back() ^= 1;
    b.d.write("data_cache/tail_0.bin", tail);
    b.open();
    CHECK(b.mirror->held_out().size() == 0);
    b.mirror->expect(4);
    b.work();
    CHECK(all(b.mirror->held_out()) == expected);
    CHECK(b.far->requests == std::vector<test::scripted_mirror::request>{{"shard_0.bin", 0}});
  }
}

TEST_CASE("a break goes on where it was, also after a restart, and waits longer each time") {
  bench b(1, tokens, 1'000'000);
  b.far->breaks_after["shard_0.bin"] = 1500;
  b.mirror->expect(0);
  CHECK(b.mirror->work_once(noon));
  CHECK(!b.mirror->work_once(noon)); // not before a second has passed
  CHECK(b.mirror->lease(0).status().why() == kernels::code::unavailable);
  CHECK(b.mirror->lease(0).status().message() ==
        "shard 0 of http://mirror.test/shards is not here: http://mirror.test/shards/shard_0.bin: the "
        "connection broke");
  CHECK(b.mirror->work_once(noon + seconds(1)));
  CHECK(!b.mirror->work_once(noon + seconds(2)));
  b.open();
  b.mirror->expect(0);
  b.far->breaks_after.clear();
  b.work();
  CHECK(b.far->requests == std::vector<test::scripted_mirror::request>{
                               {"shard_0.bin", 0}, {"shard_0.bin", 1500}, {"shard_0.bin", 3000}});
  CHECK(leased(*b.mirror, 0).front() == 300);
}

TEST_CASE("what has arrived of a shard stays while others are fetched, and goes with the room") {
  bench b(24, tokens, 4 * shard_bytes);
  b.far->breaks_after["shard_0.bin"] = 1500;
  b.mirror->expect(0);
  b.work();
  CHECK(b.shards_here() == std::set<uint64_t>{1, 2});
  CHECK(std::filesystem::file_size(b.d.path("data_cache/shard_0.bin.part")) == 1500);
  b.work(noon + seconds(1));
  CHECK(b.far->requests.back() == test::scripted_mirror::request{"shard_0.bin", 1500});
  b.mirror->expect(1);
  b.work(noon + seconds(1));
  CHECK(b.shards_here() == std::set<uint64_t>{1, 2, 3});
  CHECK(!std::filesystem::exists(b.d.path("data_cache/shard_0.bin.part")));
  CHECK(b.cache_bytes() <= 4 * shard_bytes);
}

TEST_CASE("a server that knows no ranges sends the whole again") {
  bench b(1, tokens, 1'000'000);
  b.far->takes_ranges = false;
  b.far->breaks_after["shard_0.bin"] = 1500;
  b.mirror->expect(0);
  b.work();
  b.far->breaks_after.clear();
  b.work(noon + seconds(1));
  CHECK(leased(*b.mirror, 0).size() == 900);
  CHECK(b.told.back() == "http://mirror.test/shards/shard_0.bin: has been fetched");
}

TEST_CASE("what is not as the manifest says is thrown away, named, and never read") {
  bench b(3, tokens, 1'000'000);
  std::string& shard = b.far->files["shard_1.bin"];
  const std::string sound = shard;
  std::string why;
  SUBCASE("another byte") {
    shard[100] ^= 1;
    why = "its SHA-256 is not that of the manifest";
  }
  SUBCASE("a byte too much") {
    shard += 'x';
    why = "sends more than the 4000 bytes that its manifest says";
  }
  SUBCASE("a byte too little") {
    shard.pop_back();
    why = "ended after 3999 of 4000 bytes";
  }
  SUBCASE("a token that the vocabulary has not") {
    b.how.vocab_size = 2000;
    b.open();
    why = "holds token 2299, the vocabulary has 2000";
  }
  b.mirror->expect(1);
  b.work();
  REQUIRE(!b.told.empty());
  CHECK(b.told.front().find("http://mirror.test/shards/shard_1.bin: ") == 0);
  CHECK(b.told.front().find(why) != std::string::npos);
  CHECK(!b.here(1));
  CHECK(!std::filesystem::exists(b.d.path("data_cache/shard_1.bin")));
  // The loader goes on with what is here, once the shard has failed three times.
  auto loader = data_loader::make(b.mirror, {"a node", 1'000'000});
  REQUIRE(loader.ok());
  data_cursor at;
  while (loader->shard_id(at) != 1)
    ++at.index;
  CHECK(loader->settle(at) == at);
  for (int s = 1; s < 30; ++s)
    b.work(noon + seconds(s));
  const data_cursor other = loader->settle(at);
  CHECK(loader->shard_id(other) != 1);
  CHECK(loader->ready(other).ok());
  // And takes the shard as soon as the mirror is right again.
  if (why.find("vocabulary") == std::string::npos) {
    shard = sound;
    b.mirror->expect(1);
    b.work(noon + seconds(1000));
    CHECK(leased(*b.mirror, 1).front() == 1300);
  }
}

TEST_CASE("a slow mirror is not waited for: the shards that are here are drawn again") {
  bench b(4, tokens, 1'000'000);
  auto loader = data_loader::make(b.mirror, {"a node", 1'000'000});
  REQUIRE(loader.ok());
  data_cursor at;
  CHECK(loader->settle(at) == at);
  CHECK(loader->ready(at).why() == kernels::code::unavailable);
  CHECK(b.mirror->work_once(noon)); // the first, and no other
  CHECK(loader->ready(at).ok());
  const uint64_t first = loader->shard_id(at);
  at = loader->advance(at, 900);
  CHECK(loader->shard_id(at) == first);
  CHECK(at.rotation == 1);
  b.work();
  at = loader->advance(at, 900);
  CHECK(at == data_cursor{1, 1, 0});
  CHECK(loader->shard_id(at) != first);
}

TEST_CASE("with room for one shard the next comes when the first goes") {
  bench b(24, tokens, shard_bytes);
  CHECK(b.mirror->room() == 1);
  auto loader = data_loader::make(b.mirror, {"a node", shard_bytes});
  REQUIRE(loader.ok());
  data_cursor at = loader->settle({});
  b.work();
  const uint64_t first = loader->shard_id(at);
  at = loader->settle(loader->advance(at, 1000));
  CHECK(loader->shard_id(at) == (first + 1) % 23);
  CHECK(!loader->ready(at).ok());
  b.work();
  CHECK(loader->ready(at).ok());
  CHECK(b.shards_here().size() == 1);
}

TEST_CASE("a damaged shard in the cache is fetched again") {
  bench b(2, tokens, 1'000'000);
  b.mirror->expect(0);
  b.work();
  std::string bytes = b.d.read("data_cache/shard_1.bin");
  bytes[17] ^= 4;
  b.d.write("data_cache/shard_1.bin", bytes);
  b.open();
  REQUIRE(b.told.size() == 1);
  CHECK(b.told[0].find("shard_1.bin: damaged: its SHA-256") != std::string::npos);
  b.mirror->expect(0);
  b.work();
  CHECK(leased(*b.mirror, 1).front() == 1300);
}

TEST_CASE("a manifest with larger shards than there may be is refused") {
  const test::temporary_directory d;
  shard_mirror::options how;
  how.url = "https://user:secret@mirror.test";
  how.directory = d.path("cache");
  how.from = std::make_shared<test::scripted_mirror>();
  how.manifest.shards.push_back({0, shard_tokens_full + 1, std::string(64, '0'), ""});
  const auto refused = shard_mirror::open(how);
  CHECK(refused.status().message() ==
        "https://mirror.test/manifest.json: shard 0 has 2500001 tokens, a shard has at most 2500000");
  how.manifest.shards.clear();
  CHECK(shard_mirror::open(how).status().why() == kernels::code::invalid_argument);
}

TEST_CASE("the thread fetches what is expected and ends with the mirror") {
  bench b(6, tokens, 1'000'000);
  b.mirror->start();
  b.mirror->expect(2);
  for (int i = 0; i < 2000 && b.shards_here().size() < 6; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(b.shards_here().size() == 6);
  b.mirror.reset();
}
