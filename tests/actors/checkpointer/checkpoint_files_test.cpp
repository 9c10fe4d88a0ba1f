#include "actors/checkpointer/checkpoint_folder.hpp"
#include "actors/checkpointer/checkpoint_reader.hpp"
#include "tests/actors/checkpointer/checkpoint_support.hpp"
#include "tests/support/test.hpp"

#include <sys/resource.h>

#include <csignal>

using namespace neuroshard;
using namespace neuroshard::test;

TEST_CASE("a checkpoint that was written reads back as it was, to the last bit of its state") {
  checkpoint_place place;
  const auto id = place.write(123, 1);
  CHECK(id.starts_with("000000000123-"));
  CHECK(id.size() == 12 + 1 + 16);
  auto reader = checkpoint_reader::open(place.folder + "/" + id);
  INFO(reader.status().message());
  REQUIRE(reader.ok());
  CHECK(reader->verify().ok());
  const auto state = some_state(123);
  const auto& read = reader->manifest().state;
  CHECK(read.inner_step == 123);
  CHECK(read.loss == state.loss);
  CHECK(read.validation_loss == state.validation_loss);
  CHECK(read.loss_history == state.loss_history);
  CHECK(read.untrained_loss == std::nullopt);
  CHECK(read.data_cursor == state.data_cursor);
  for (const auto& [name, tensor] : tiny_tensors(1)) {
    const auto* record = reader->manifest().find(name);
    REQUIRE(record != nullptr);
    CHECK(record->offset % 64 == 0);
    std::vector<float> values(tensor.values.size());
    REQUIRE(reader->read(*record, std::as_writable_bytes(std::span(values))).ok());
    CHECK(values == tensor.values);
  }
  CHECK(file_text(place.folder + "/" + id + "/tokenizer.json") == file_text(place.tokenizer_path));
  CHECK_FALSE(fs::exists(place.folder + "/.tmp-123"));
}

TEST_CASE("the units' hashes do not depend on the order in which tensors were written") {
  std::vector<tensor_record> records;
  for (const char* name :
       {"norm.weight", "layers.10.ffn.up.weight", "layers.2.ffn.up.weight", "embed.weight", "head.weight"})
    records.push_back(
        {"tensors.bin", name, kernels::dtype::f32, {1}, 0, 4, kernels::sha256::of(std::string_view(name))});
  const auto units = hash_units(records);
  std::swap(records.front(), records.back());
  const auto again = hash_units(records);
  REQUIRE(units.size() == 4);
  for (size_t i = 0; i < units.size(); ++i)
    CHECK(units[i].hash == again[i].hash);
  CHECK(units[0].unit == "embed");
  CHECK(units[1].unit == "layer.2");
  CHECK(units[2].unit == "layer.10");
  CHECK(units[3].unit == "head");
}

TEST_CASE("a flipped byte anywhere in any file is found and named") {
  checkpoint_place place;
  const auto id = place.write(1, 2);
  const fs::path directory = fs::path(place.folder) / id;
  for (const std::string file : {"manifest.json", "tensors.bin", "optimizer.bin", "tokenizer.json"}) {
    const auto sound = file_text(directory / file);
    for (const size_t at :
         {size_t{0}, sound.size() / 3, sound.size() / 2, sound.size() - 2, sound.size() - 1}) {
      flip_byte(directory / file, at);
      auto reader = checkpoint_reader::open(directory.string());
      const auto outcome = reader.ok() ? reader->verify() : reader.status();
      INFO(file << " at " << at << ": " << outcome.message());
      CHECK(outcome.why() == kernels::code::corrupt);
      CHECK(outcome.message().find(file == "manifest.json" ? "manifest" : file) != std::string::npos);
      set_file_text(directory / file, sound);
    }
  }
  CHECK(checkpoint_reader::open(directory.string())->verify().ok());
}

TEST_CASE("a file that is cut short, too long, missing, a link or a directory is refused") {
  checkpoint_place place;
  const auto id = place.write(1, 2);
  const fs::path directory = fs::path(place.folder) / id;
  for (const std::string file : {"manifest.json", "tensors.bin", "optimizer.bin", "tokenizer.json"}) {
    const auto sound = file_text(directory / file);
    const auto refused = [&](const char* how) {
      const auto reader = checkpoint_reader::open(directory.string());
      INFO(file << ' ' << how);
      CHECK(reader.status().why() == kernels::code::corrupt);
      fs::remove_all(directory / file);
      set_file_text(directory / file, sound);
    };
    set_file_text(directory / file, sound.substr(0, sound.size() / 2));
    refused("half");
    set_file_text(directory / file, "");
    refused("empty");
    set_file_text(directory / file, sound + "x");
    refused("longer");
    fs::remove(directory / file);
    refused("missing");
    fs::rename(directory / file, place.root.path() + "/elsewhere");
    fs::create_symlink(place.root.path() + "/elsewhere", directory / file);
    refused("link");
    fs::remove(directory / file);
    fs::create_directory(directory / file);
    refused("directory");
  }
}

namespace {

/// The manifest with a change, sealed anew: what a forger would write.
std::string resealed(const std::string& text, const std::string& from, const std::string& to) {
  const auto seal = text.find(",\"manifest_sha256\"");
  auto body = text.substr(0, seal);
  const auto at = body.find(from);
  REQUIRE(at != std::string::npos);
  body.replace(at, from.size(), to);
  const auto hash = kernels::to_hex(kernels::sha256::of(std::string_view(body)));
  return body + ",\"manifest_sha256\":\"" + hash + "\"}\n";
}

} // namespace

TEST_CASE("a forged manifest with a right checksum is refused for what it says") {
  checkpoint_place place;
  const auto id = place.write(1, 2);
  const auto text = file_text(fs::path(place.folder) / id / "manifest.json");
  REQUIRE(parse_manifest(text).ok());
  const std::pair<const char*, const char*> forgeries[] = {
      {"\"format\":1", "\"format\":2"},
      {"\"format\":1", "\"format\":1,\"format\":1"},
      {"\"format\":1", "\"format\":1,\"extra\":0"},
      {"\"inner_step\":1", "\"inner_step\":-1"},
      {"\"inner_step\":1", "\"inner_step\":1e400"},
      {"\"loss_min\":4.5", "\"loss_min\":null"},
      {"\"loss_min\":4.5", "\"loss_min\":NaN"},
      {"\"file\":\"tensors.bin\"", "\"file\":\"../../etc/passwd\""},
      {"\"file\":\"tensors.bin\"", "\"file\":\"optimizer.bin\""},
      {"embed.weight", "embed.wait"},
      {"\"shape\":[320,32]", "\"shape\":[320,33]"},
      {"\"shape\":[320,32]", "\"shape\":[4611686018427387904,4]"},
      {"\"shape\":[320,32]", "\"shape\":[320,0]"},
      {"\"shape\":[320,32]", "\"shape\":[]"},
      {"\"shape\":[320,32]", "\"shape\":[1,1,1,320,32]"},
      {"\"offset\":0", "\"offset\":64"},
      {"\"offset\":0", "\"offset\":18446744073709551615"},
      {"\"length\":40960", "\"length\":18446744073709551615"},
      {"\"dtype\":1", "\"dtype\":2"},
      {"\"unit\":\"embed\"", "\"unit\":\"head\""},
      {"\"state\":{", "\"state\":[]"},
      {"\\\"num_layers\\\":2", "\\\"num_layers\\\":3"},
      {"\"tensors\":[", "\"tensors\":[[[[[[[["},
  };
  for (const auto& [from, to] : forgeries) {
    const auto parsed = parse_manifest(resealed(text, from, to));
    INFO(from << " -> " << to << ": " << parsed.status().message());
    CHECK_FALSE(parsed.ok());
    CHECK_FALSE(parsed.status().message().empty());
  }
  CHECK_FALSE(parse_manifest("").ok());
  CHECK_FALSE(parse_manifest(std::string(100'000, '[')).ok());
}

TEST_CASE("a checkpoint under another name is refused") {
  checkpoint_place place;
  const auto id = place.write(1, 2);
  fs::rename(place.folder + "/" + id, place.folder + "/000000000002" + id.substr(12));
  const auto reader = checkpoint_reader::open(place.folder + "/000000000002" + id.substr(12));
  CHECK(reader.status().why() == kernels::code::corrupt);
}

TEST_CASE("only names of checkpoints are listed, newest first") {
  checkpoint_place place;
  const auto one = place.write(1, 2);
  const auto two = place.write(20, 2);
  fs::create_directory(place.folder + "/.tmp-x");
  fs::create_directory(place.folder + "/" + one + ".damaged");
  fs::create_directory(place.folder + "/lost+found");
  set_file_text(place.folder + "/000000000009-0123456789abcdef", "a file");
  const auto found = list_folder(place.folder);
  REQUIRE(found.size() == 2);
  CHECK(found[0].id == two);
  CHECK(found[1].id == one);
  CHECK(list_folder(place.folder + "/nowhere").empty());
  CHECK(step_of_name("00000000001-0123456789abcdef") == std::nullopt);
  CHECK(step_of_name("000000000001-0123456789abcdeF") == std::nullopt);
  CHECK(step_of_name("000000000001-0123456789abcde") == std::nullopt);
}

TEST_CASE("writing the same checkpoint again replaces it") {
  checkpoint_place place;
  const auto id = place.write(5, 2, 10);
  CHECK(place.write(5, 2, 20) == id);
  const auto reader = checkpoint_reader::open(place.folder + "/" + id);
  REQUIRE(reader.ok());
  CHECK(reader->manifest().created_unix_us == 20);
  CHECK(list_folder(place.folder).size() == 1);
  CHECK(remove_unfinished(place.folder) == 0);
}

TEST_CASE("what a killed process left unfinished is removed, and a writer that gives up removes its own") {
  checkpoint_place place;
  const auto id = place.write(5, 2);
  fs::create_directories(place.folder + "/.tmp-7-1/x");
  set_file_text(place.folder + "/.tmp-7-1/tensors.bin", "half");
  CHECK(remove_unfinished(place.folder) == 1);
  CHECK(list_folder(place.folder).size() == 1);
  {
    auto writer = checkpoint_writer::begin(place.folder, "9");
    REQUIRE(writer.ok());
    CHECK(fs::exists(place.folder + "/.tmp-9"));
  }
  CHECK_FALSE(fs::exists(place.folder + "/.tmp-9"));
}

TEST_CASE("a write that the system refuses is an error, not an end") {
  checkpoint_place place;
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4096, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  auto writer = checkpoint_writer::begin(place.folder, "1");
  REQUIRE(writer.ok());
  const std::vector<float> values(320 * 32);
  const auto outcome = writer->append("embed.weight", {320, 32}, std::as_bytes(std::span(values)));
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(outcome.why() == kernels::code::io);
  CHECK(outcome.message().find("tensors.bin") != std::string::npos);
}

TEST_CASE("a checkpoint that could not be read again gets no name") {
  checkpoint_place place;
  auto writer = checkpoint_writer::begin(place.folder, "1");
  REQUIRE(writer.ok());
  const std::vector<float> values(4);
  REQUIRE(writer->append("layers.0.attn_norm.weight", {4}, std::as_bytes(std::span(values))).ok());
  REQUIRE(writer->append("adam.m/layers.1.attn_norm.weight", {4}, std::as_bytes(std::span(values))).ok());
  checkpoint_manifest manifest;
  manifest.architecture = tiny_architecture();
  CHECK_FALSE(writer->finish(manifest, place.tokenizer_path).ok());
  manifest = {};
  manifest.state.loss = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(to_json(manifest).ok());
}
