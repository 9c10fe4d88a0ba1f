#pragma once

#include "actors/checkpointer/checkpoint_receiver.hpp"
#include "actors/checkpointer/checkpoint_server.hpp"
#include "tests/actors/checkpointer/checkpoint_support.hpp"

#include <map>
#include <memory>
#include <string>
#include <utility>

namespace neuroshard::test {

inline std::shared_ptr<const node_identity> make_identity(unsigned number) {
  auto token = parse_token(std::string(60, 'c') + std::to_string(1'000 + number));
  REQUIRE(static_cast<bool>(token));
  auto made = node_identity::make(*token, 0, 1);
  REQUIRE(static_cast<bool>(made));
  return std::make_shared<const node_identity>(std::move(*made));
}

/// A node's checkpoints on disk, with outer velocity.
struct served_place : checkpoint_place {
  /// At the end of a round when `step` is a multiple of 100.
  std::string write_with_velocity(uint64_t step, float salt) {
    auto writer = checkpoint_writer::begin(folder, std::to_string(step));
    REQUIRE(writer.ok());
    auto tensors = tiny_tensors(salt);
    const auto weights = tensors.size() / 3;
    for (const std::string prefix : {"diloco.w0/", "diloco.v/", "diloco.r/"})
      for (size_t i = 0; i < weights; ++i) {
        auto copy = tensors[i];
        copy.first = prefix + copy.first;
        for (auto& value : copy.second.values)
          value += static_cast<float>(prefix.size());
        tensors.push_back(std::move(copy));
      }
    for (const auto& [name, tensor] : tensors)
      REQUIRE(writer->append(name, tensor.shape, std::as_bytes(std::span(tensor.values))).ok());
    checkpoint_manifest manifest;
    manifest.architecture = tiny_architecture();
    manifest.tokenizer_hash = kernels::to_hex(tokens.hash());
    manifest.wallet_id = "0123456789abcdef";
    manifest.software = "test";
    manifest.created_unix_us = static_cast<int64_t>(step) * 1'000'000;
    manifest.state = some_state(step);
    auto id = writer->finish(manifest, tokenizer_path);
    REQUIRE(id.ok());
    return *id;
  }
  checkpoint_server_options server_options() const {
    checkpoint_server_options o;
    o.folder = folder;
    o.architecture = tiny_architecture();
    o.tokenizer_hash = kernels::to_hex(tokens.hash());
    return o;
  }
  checkpoint_receiver_options receiver_options() const {
    checkpoint_receiver_options o;
    o.folder = root.path() + "/incoming";
    o.architecture = tiny_architecture();
    o.tokenizer_hash = kernels::to_hex(tokens.hash());
    o.max_storage_mb = 100;
    o.chunk_bytes = chunk_bytes_min;
    return o;
  }
  /// What the holders of these units announce of a checkpoint here.
  std::vector<unit_state> announced(const std::string& id, const std::vector<std::string>& units = {}) const {
    auto reader = checkpoint_reader::open(folder + "/" + id);
    REQUIRE(reader.ok());
    std::vector<transfer_tensor> table;
    for (const auto& t : reader->manifest().tensors)
      table.push_back({t.name, t.type, t.shape, t.offset, t.length, t.sha256});
    auto all = units_of_table(table);
    if (!units.empty())
      std::erase_if(all, [&](const unit_state& unit) {
        return std::find(units.begin(), units.end(), unit.unit) == units.end();
      });
    return all;
  }
};

/// Changes a manifest and signs it anew.
template <class Change>
signed_blob altered(const signed_blob& blob, const node_identity& by, Change change) {
  auto manifest = decode_transfer_manifest(blob.payload);
  REQUIRE(static_cast<bool>(manifest));
  change(*manifest);
  return by.sign_as_node(checkpoint_tag, encode(*manifest));
}

} // namespace neuroshard::test
