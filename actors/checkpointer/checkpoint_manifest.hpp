#pragma once

#include "actors/checkpointer/training_state.hpp"
#include "kernels/core/dtype.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"
#include "kernels/model/architecture.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What stands in the `manifest.json` of a checkpoint (spec model.md section 10), and the rules that hold
/// between its parts. Plain values; a manifest that parse_manifest has accepted keeps all of them.
namespace neuroshard {

inline constexpr uint32_t checkpoint_format = 1;
inline constexpr uint64_t tensor_alignment = 64; ///< of every tensor in its file
inline constexpr uint64_t manifest_bytes_max = 16U << 20;
inline constexpr size_t manifest_tensors_max = 16384;
inline constexpr uint64_t tokenizer_bytes_max = 256U << 20;

inline constexpr const char* manifest_file = "manifest.json";
inline constexpr const char* tensors_file = "tensors.bin";
inline constexpr const char* optimizer_file = "optimizer.bin";
inline constexpr const char* diloco_file = "diloco.bin";
inline constexpr const char* tokenizer_file = "tokenizer.json";

/// One tensor in one of the files: raw little-endian f32, row-major, from `offset`.
struct tensor_record {
  std::string file;
  std::string name; ///< parameter name; optimizer state has the prefix "adam.m/" or "adam.v/"
  kernels::dtype type = kernels::dtype::f32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;
  uint64_t length = 0; ///< bytes
  kernels::digest sha256{};
};

struct unit_record {
  std::string unit;
  kernels::digest hash{}; ///< unit hash of the f32 weights
};

struct checkpoint_manifest {
  std::string software;
  std::string wallet_id; ///< 16 hex digits
  std::string reason;    ///< why it was made
  int64_t created_unix_us = 0;
  model::architecture architecture;
  std::string tokenizer_hash; ///< 64 hex: of the merges
  uint64_t tokenizer_bytes = 0;
  kernels::digest tokenizer_sha256{}; ///< of the copied file
  training_state state;
  std::vector<unit_record> units;     ///< in hash order
  std::vector<tensor_record> tensors; ///< in file order

  /// Length of one of the data files; 0 when no tensor is in it.
  uint64_t file_bytes(std::string_view file) const;
  /// All files of the directory together, without the manifest.
  uint64_t total_bytes() const;
  const tensor_record* find(std::string_view name) const;
};

/// The data file a tensor belongs in, by the prefix of its name.
const char* file_of(std::string_view tensor_name);
/// "embed", "layer.N" or "head"; empty for a name that is no parameter's.
std::string unit_of(std::string_view parameter_name);
/// Unit hashes of the weights among the tensors, in the order embed, layer.0, ..., head.
std::vector<unit_record> hash_units(std::span<const tensor_record> tensors);
/// SHA-256 over the unit hashes in order: the model hash when all units are there.
kernels::digest hash_of_units(std::span<const unit_record> units);
/// Directory name: inner step in 12 digits, '-', the first 16 hex digits of hash_of_units.
std::string checkpoint_name(uint64_t inner_step, const kernels::digest& units);
/// The inner step in a directory's name; nothing when it is no checkpoint's name.
std::optional<uint64_t> step_of_name(std::string_view directory_name);
/// Rounds up to the alignment; nothing when that overflows.
std::optional<uint64_t> aligned(uint64_t bytes);

/// JSON text that ends with the SHA-256 of everything before it, so that no byte of it can change unnoticed.
/// `invalid_argument` when a number of the state is not finite.
kernels::result<std::string> to_json(const checkpoint_manifest& manifest);
/// Strict and bounded; `corrupt` says which member is wrong.
kernels::result<checkpoint_manifest> parse_manifest(std::string_view text);
/// The counters as they go to another node: the shared ones, with `own_too` all. Errors as above.
kernels::result<std::string> state_to_json(const training_state& state, bool own_too);
kernels::result<training_state> parse_state(std::string_view text);
/// The rules between the parts: unique names, sizes that fit shapes, no gap and no overlap in a file, moments
/// for weights, unit hashes that are those of the tensors.
kernels::status check(const checkpoint_manifest& manifest);

} // namespace neuroshard
