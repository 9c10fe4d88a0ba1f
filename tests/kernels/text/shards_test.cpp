#include "kernels/text/shards.hpp"

#include "kernels/core/sha256.hpp"
#include "kernels/text/shard_writer.hpp"
#include "tests/kernels/text/random_text.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/test.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

using ids = std::vector<token_id>;
const std::string some_hash(64, 'a');

// Document n is `length` times the token 1000 + n.
shard_manifest write_documents(const test::temporary_directory& d, const std::vector<size_t>& lengths,
                               double held_out = 0.05) {
  auto writer = shard_writer::make({d.path(), held_out, UINT64_MAX, some_hash, some_hash});
  REQUIRE(writer.ok());
  for (size_t n = 0; n < lengths.size(); ++n)
    REQUIRE(*writer->add(ids(lengths[n], static_cast<token_id>(1000 + n)), "file " + std::to_string(n)));
  auto made = writer->finish();
  REQUIRE(made.ok());
  return *made;
}

ids training_of(const shard_set& set) {
  ids out;
  for (size_t i = 0; i < set.training_ids().size(); ++i)
    out.insert(out.end(), set.training_tokens(i).begin(), set.training_tokens(i).end());
  return out;
}

ids heldout_of(const shard_set& set) {
  ids out(set.heldout().size());
  set.heldout().copy(0, out);
  return out;
}

bool has(const ids& where, token_id what) {
  return std::find(where.begin(), where.end(), what) != where.end();
}

// Ready-made shards, as a mirror has them.
void write_mirror(const test::temporary_directory& d, size_t count, size_t tokens) {
  shard_manifest manifest;
  manifest.tokenizer_hash = some_hash;
  for (size_t n = 0; n < count; ++n) {
    ids shard(tokens);
    std::iota(shard.begin(), shard.end(), static_cast<token_id>(1000 * (n + 1)));
    const std::string_view bytes(reinterpret_cast<const char*>(shard.data()), tokens * sizeof(token_id));
    const uint64_t id = 3 * n; // not dense
    d.write(shard_file_name(id), bytes);
    manifest.shards.push_back({id, tokens, kernels::to_hex(kernels::sha256::of(bytes)), "mirror"});
    manifest.total_tokens += tokens;
  }
  d.write("manifest.json", manifest.to_json());
}

} // namespace

TEST_CASE("documents come back from shards whole, each ended by EOS, in a fixed shuffled order") {
  const test::temporary_directory d;
  const std::vector<size_t> lengths(100, 50);
  const auto manifest = write_documents(d, lengths);
  CHECK(manifest.shards.size() == 8);
  CHECK(manifest.documents == 100);
  const auto set = shard_set::open(d.path(), {});
  REQUIRE(set.ok());
  const ids training = training_of(*set);
  CHECK(training.size() == 95 * 51);
  std::vector<token_id> order;
  for (size_t at = 0; at < training.size(); at += 51) {
    CHECK(training[at + 50] == eos_id);
    CHECK(std::all_of(training.begin() + static_cast<ptrdiff_t>(at),
                      training.begin() + static_cast<ptrdiff_t>(at + 50),
                      [&](token_id id) { return id == training[at]; }));
    order.push_back(training[at]);
  }
  CHECK(!std::is_sorted(order.begin(), order.end()));
  const test::temporary_directory again;
  write_documents(again, lengths);
  for (const char* name : {"shard_0.bin", "shard_7.bin", "heldout.bin", "manifest.json"})
    CHECK(d.read(name) == again.read(name));
}

TEST_CASE("the last documents are held out and never trained on") {
  const test::temporary_directory d;
  write_documents(d, std::vector<size_t>(100, 50));
  const auto set = shard_set::open(d.path(), {});
  REQUIRE(set.ok());
  CHECK(set->heldout().size() == 5 * 51);
  const ids training = training_of(*set);
  const ids heldout = heldout_of(*set);
  for (token_id id = 1000; id < 1100; ++id) {
    CHECK(has(training, id) == (id < 1095));
    CHECK(has(heldout, id) == (id >= 1095));
  }
}

TEST_CASE("at least one document is held out; a single one is split by tokens") {
  const test::temporary_directory d;
  write_documents(d, {30, 20});
  CHECK(shard_set::open(d.path(), {})->heldout().size() == 21);
  write_documents(d, {999});
  const auto single = shard_set::open(d.path(), {});
  CHECK(single->heldout().size() == 50);
  CHECK(single->training_tokens_total() == 950);
  CHECK(single->training_ids().size() == 8);
  CHECK(heldout_of(*single).back() == eos_id);
  write_documents(
      d, {3, 996}); // a title, then all of the text: holding out the text would leave a title to learn
  CHECK(shard_set::open(d.path(), {})->heldout().size() == 50);
}

TEST_CASE("small corpora make small shards of at least two tokens") {
  const test::temporary_directory d;
  for (size_t tokens = 4; tokens < 60; ++tokens) {
    const auto manifest = write_documents(d, {tokens - 1});
    CHECK(manifest.shards.size() >= std::min<size_t>(8, (tokens - 2) / 2));
    CHECK(manifest.shards.size() <= 8);
    const auto set = shard_set::open(d.path(), {});
    REQUIRE(set.ok());
    CHECK(set->training_tokens_total() + set->heldout().size() == tokens);
    for (size_t i = 0; i < set->training_ids().size(); ++i)
      CHECK(set->training_tokens(i).size() >= 2);
  }
  auto writer = shard_writer::make({d.path(), 0.05, UINT64_MAX, some_hash, some_hash});
  REQUIRE(*writer->add(ids(2, 1000), "x"));
  const auto refused = writer->finish();
  REQUIRE(!refused.ok());
  CHECK(refused.status().message().find("too small") != std::string::npos);
}

TEST_CASE("writing again replaces all older shards and leaves no temporary file") {
  const test::temporary_directory d;
  write_documents(d, std::vector<size_t>(100, 50));
  d.write("shard_99.bin", "old");
  d.write("tokens.tmp1", "old");
  d.write("else.txt", "kept");
  write_documents(d, {20});
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(d.path()))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"else.txt", "heldout.bin", "manifest.json", "shard_0.bin",
                                          "shard_1.bin", "shard_2.bin", "shard_3.bin", "shard_4.bin",
                                          "shard_5.bin", "shard_6.bin", "shard_7.bin"});
}

TEST_CASE("a writer with a limit cuts the document that passes it") {
  const test::temporary_directory d;
  auto writer = shard_writer::make({d.path(), 0.05, 100, some_hash, some_hash});
  REQUIRE(writer.ok());
  CHECK(*writer->add(ids(50, 1000), "x"));
  CHECK(!*writer->add(ids(60, 1001), "x"));
  CHECK(writer->tokens() == 100);
  CHECK(!*writer->add(ids(1, 1002), "x"));
  CHECK(writer->finish(11)->bytes_left_out == 11);
}

TEST_CASE("a damaged shard is refused by name, or left out on request") {
  const test::temporary_directory d;
  write_documents(d, std::vector<size_t>(100, 50));
  const std::string good = d.read("shard_3.bin");
  std::string flipped = good;
  flipped[17] ^= 1;
  for (const std::string& bad : {flipped, good.substr(4), good + "    ", std::string()}) {
    d.write("shard_3.bin", bad);
    const auto refused = shard_set::open(d.path(), {});
    REQUIRE(!refused.ok());
    CHECK(refused.status().why() == kernels::code::corrupt);
    CHECK(refused.status().message().find("shard_3.bin: damaged") != std::string::npos);
    const auto rest = shard_set::open(d.path(), {.leave_out_corrupt = true});
    REQUIRE(rest.ok());
    CHECK(rest->training_ids().size() == 7);
    CHECK(rest->warnings().size() == 1);
  }
  std::filesystem::remove(d.path("shard_3.bin"));
  CHECK(shard_set::open(d.path(), {}).status().why() == kernels::code::io);
  d.write("shard_3.bin", good);
  CHECK(shard_set::open(d.path(), {}).ok());
  const auto vocabulary = shard_set::open(d.path(), {.vocab_size = 1050});
  REQUIRE(!vocabulary.ok());
  CHECK(vocabulary.status().message().find("the vocabulary has 1050") != std::string::npos);
}

TEST_CASE("a hostile manifest gives one line that names it") {
  const test::temporary_directory d;
  CHECK(shard_set::open(d.path(), {}).status().why() == kernels::code::io);
  const std::string hash = "\"" + some_hash + "\"";
  const std::string entry = "{\"id\":0,\"tokens\":5,\"sha256\":" + hash + "}";
  const auto with = [&](const std::string& shards, const std::string& total, const std::string& tokens) {
    return "{\"total_shards\":" + total + ",\"total_tokens\":" + tokens + ",\"tokenizer_hash\":" + hash +
           ",\"shards\":[" + shards + "]}";
  };
  CHECK(shard_manifest::parse(with(entry, "1", "5"), "m").ok());
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("[]"), std::string(1'000'000, '['),
        with(entry, "2", "5"), with(entry, "1", "6"), with(entry + "," + entry, "2", "10"),
        with("7", "1", "5"), with("{}", "1", "5"),
        with("{\"id\":-1,\"tokens\":5,\"sha256\":" + hash + "}", "1", "5"),
        with("{\"id\":0,\"tokens\":0,\"sha256\":" + hash + "}", "1", "0"),
        with("{\"id\":0,\"tokens\":9000000000000000000,\"sha256\":" + hash + "}", "1", "9000000000000000000"),
        with("{\"id\":0,\"tokens\":5,\"sha256\":\"../../x\"}", "1", "5"),
        "{\"format_version\":2," + with(entry, "1", "5").substr(1)}) {
    const auto parsed = shard_manifest::parse(bad, "manifest.json");
    REQUIRE(!parsed.ok());
    CHECK(parsed.status().why() == kernels::code::corrupt);
    CHECK(parsed.status().message().starts_with("manifest.json: not a manifest of shards: "));
  }
}

TEST_CASE("a mirror of 20 shards or more holds out the highest, a smaller one the tails") {
  const test::temporary_directory large;
  write_mirror(large, 20, 40);
  const auto many = shard_set::open(large.path(), {});
  REQUIRE(many.ok());
  CHECK(many->training_ids().size() == 19);
  CHECK(many->training_ids().back() == 54);
  CHECK(many->heldout().size() == 40);
  CHECK(heldout_of(*many).front() == 20'000);

  const test::temporary_directory small;
  write_mirror(small, 19, 40);
  const auto few = shard_set::open(small.path(), {.held_out = 0.25});
  REQUIRE(few.ok());
  CHECK(few->training_ids().size() == 19);
  CHECK(few->training_tokens(0).size() == 30);
  CHECK(few->heldout().size() == 190);
  ids across(4);
  few->heldout().copy(8, across); // over the border of two tails
  CHECK(across == ids{1038, 1039, 2030, 2031});
}
