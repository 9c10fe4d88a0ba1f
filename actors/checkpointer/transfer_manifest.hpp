#pragma once

#include "actors/checkpointer/checkpoint_manifest.hpp"
#include "actors/identity/node_identity.hpp"
#include "actors/peer_manager/membership.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// What precedes a checkpoint on its way to another node: CheckpointManifest of the gRPC page, and the rules
/// between its parts. Plain values.
namespace neuroshard {

inline constexpr std::string_view checkpoint_tag = "neuroshard-checkpoint-v1";
inline constexpr size_t transfer_manifest_bytes_max = 8U << 20;
inline constexpr const char* tokenizer_unit = "tokenizer";
inline constexpr const char* velocity_prefix = "diloco.v/";

/// One tensor of the stream; its bytes are little-endian and row-major.
struct transfer_tensor {
  std::string name;
  kernels::dtype type = kernels::dtype::f32;
  std::vector<int64_t> shape;
  uint64_t offset = 0; ///< in the stream
  uint64_t length = 0; ///< bytes
  kernels::digest sha256{};
  friend bool operator==(const transfer_tensor&, const transfer_tensor&) = default;
};

struct transfer_manifest {
  uint64_t version = 0; ///< outer step
  uint64_t inner_step = 0;
  std::string architecture; ///< canonical JSON
  std::vector<unit_state> units;
  uint64_t total_bytes = 0;
  kernels::digest sha256{}; ///< of the whole stream
  std::vector<transfer_tensor> tensors;
  double loss = 0;
  int64_t created_unix_ms = 0;
  std::string author_node_id;
  kernels::digest tokenizer_hash{};
  std::string state_json; ///< counters
};

/// The payload that is signed, and back. Refusal: invalid_request with reason `manifest`; lengths, counts and
/// enums are bounded, nothing else is checked.
std::string encode(const transfer_manifest& from);
caf::expected<transfer_manifest> decode_transfer_manifest(std::string_view payload);

/// What a blob says, once its signature is good and its signer the author. Refusals: unauthorized,
/// invalid_request.
caf::expected<transfer_manifest> open_manifest(const signed_blob& blob, int64_t now_unix_ms);
/// 64 hex: SHA-256 of the payload.
std::string checkpoint_id_of(const signed_blob& blob);

/// Unit hashes, and velocity hashes (by parameter names without the prefix), that follow from the table.
std::vector<unit_state> units_of_table(const std::vector<transfer_tensor>& tensors);

/// The rules of a table: tensors follow each other without gap or overlap up to `total_bytes`, each unit is
/// complete and shaped as the architecture says, state stands beside its weight, units are those of the
/// tensors. So the architecture bounds the stream, beside a tokenizer of at most tokenizer_bytes_max.
/// Refusal: failed_precondition `architecture`; invalid_request `table`.
caf::error check(const transfer_manifest& manifest, const model::architecture& architecture);
/// Whether it has exactly the units expected, with these hashes; refusal: failed_precondition `unit_hash`.
caf::error check_units(const transfer_manifest& manifest, const std::vector<unit_state>& expected,
                       bool include_velocity);

} // namespace neuroshard
