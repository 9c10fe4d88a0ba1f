#pragma once

#include "actors/checkpointer/checkpoint_writer.hpp"
#include "kernels/model/parameters.hpp"
#include "kernels/text/tokenizer.hpp"
#include "tests/kernels/text/temporary_directory.hpp"
#include "tests/support/scripted_worker.hpp"
#include "tests/support/tiny_model.hpp"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace neuroshard::test {

namespace fs = std::filesystem;

inline std::string file_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}
inline void set_file_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}
inline void flip_byte(const fs::path& path, size_t at) {
  auto text = file_text(path);
  REQUIRE(at < text.size());
  text[at] = static_cast<char>(text[at] ^ 0x10);
  set_file_text(path, text);
}

/// All tensors of the tiny model with moments, with values that follow from their name, index and `salt`.
inline std::vector<std::pair<std::string, worker_script::held_tensor>> tiny_tensors(float salt) {
  std::vector<std::pair<std::string, worker_script::held_tensor>> all;
  const auto a = tiny_architecture();
  for (const std::string prefix : {"", "adam.m/", "adam.v/"})
    for (const auto& unit : model::units_of(a, 0, a.num_layers, true, true))
      for (const auto& p : unit.parameters) {
        worker_script::held_tensor tensor{p.shape, {}};
        for (int64_t i = 0; i < p.count; ++i)
          tensor.values.push_back(salt + static_cast<float>(i) * 0.001F + static_cast<float>(prefix.size()));
        all.emplace_back(prefix + p.name, std::move(tensor));
      }
  return all;
}

inline training_state some_state(uint64_t step) {
  training_state state;
  state.inner_step = step;
  state.outer_step = step / 100;
  state.round_first_step = step / 100 * 100;
  state.tokens_trained = step * 2048;
  state.loss = 3.14159265358979;
  state.validation_loss = 1.0 / 3;
  state.optimizer_step = step;
  state.data_cursor = R"({"rotation":1,"index":2,"tokens_drawn":3})";
  state.batch_size = 8;
  state.loss_history = {5.1, 4.9999999999999991, 1e-300};
  state.loss_first = {5.1};
  state.loss_min = 4.5;
  return state;
}

/// A folder with a tokenizer file, and checkpoints written without an actor.
struct checkpoint_place {
  temporary_directory root;
  std::string folder = root.path() + "/checkpoints";
  std::string tokenizer_path = root.path() + "/tokenizer.json";
  text::tokenizer tokens;

  checkpoint_place() { REQUIRE(tokens.save(tokenizer_path).ok()); }
  std::string write(uint64_t step, float salt, int64_t unix_us = 1) {
    auto writer = checkpoint_writer::begin(folder, std::to_string(step));
    REQUIRE(writer.ok());
    for (const auto& [name, tensor] : tiny_tensors(salt))
      REQUIRE(writer->append(name, tensor.shape, std::as_bytes(std::span(tensor.values))).ok());
    checkpoint_manifest manifest;
    manifest.architecture = tiny_architecture();
    manifest.tokenizer_hash = kernels::to_hex(tokens.hash());
    manifest.wallet_id = "0123456789abcdef";
    manifest.software = "test";
    manifest.created_unix_us = unix_us;
    manifest.state = some_state(step);
    auto id = writer->finish(manifest, tokenizer_path);
    INFO(id.status().message());
    REQUIRE(id.ok());
    return *id;
  }
};

} // namespace neuroshard::test
