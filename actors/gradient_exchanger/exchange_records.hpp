#pragma once

#include "actors/gradient_exchanger/delta_slice.hpp"
#include "actors/identity/node_identity.hpp"
#include "kernels/core/sha256.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What members of an exchange sign (spec/grpc-api.md, ExchangeGradient): payloads of SignedBlobs. No actor.
///
/// Encoders write the protobuf bytes, fields in order. Decoders bound every length and refuse with
/// invalid_request, reason `malformed`, and the field. The sign functions want the record to carry the
/// signer's node id; the open functions check that it does: refusals of decoder and verify_blob, and
/// unauthorized with reason `wrong_signer`.
namespace neuroshard {

inline constexpr std::string_view delta_tag = "neuroshard-delta-v1";
inline constexpr std::string_view set_tag = "neuroshard-set-v1";
inline constexpr std::string_view round_tag = "neuroshard-round-v1";

inline constexpr size_t exchange_record_bytes_max = 256 * 1024; ///< of a payload
inline constexpr size_t set_members_max = 256;                  ///< members and refusals of a set, each

/// What an author says of its contribution.
struct delta_manifest {
  std::string unit; ///< embed, layer.N, head
  uint64_t round = 0;
  uint64_t base_round = 0;
  kernels::digest base_unit_hash{};
  std::string architecture_id;
  std::string node_id;
  uint32_t inner_steps = 0;
  uint64_t batches = 0;
  uint64_t tokens = 0;
  double loss = 0;
  delta_encoding encoding = delta_encoding::dense_i8;
  std::vector<kernels::digest> part_sha256; ///< 1 to 4096
  kernels::digest content_hash{};
  int64_t created_unix_ms = 0;
  friend bool operator==(const delta_manifest&, const delta_manifest&) = default;
};
/// Decoding checks the form alone, and that content_hash is that of the parts' hashes; inner_steps and loss
/// are for contribution_checks.
std::string encode_delta_manifest(const delta_manifest& from);
caf::expected<delta_manifest> decode_delta_manifest(std::string_view payload);
signed_blob sign_delta_manifest(const node_identity& by, const delta_manifest& what);
caf::expected<delta_manifest> open_delta_manifest(const signed_blob& blob, int64_t now_unix_ms);

/// SHA-256 of the hashes one after the other.
kernels::digest content_hash_of(std::span<const kernels::digest> part_sha256);
/// Fills part_sha256 and content_hash.
void seal_parts(delta_manifest& into, std::span<const std::shared_ptr<const std::string>> parts);
/// Whether the bytes are that part.
bool is_part(const delta_manifest& of, uint32_t part, std::string_view bytes);

struct set_entry {
  std::string node_id;
  kernels::digest content_hash{};
  friend bool operator==(const set_entry&, const set_entry&) = default;
};
struct set_refusal {
  std::string node_id;
  kernels::digest content_hash{};
  std::string reason; ///< snake_case word of contribution_checks
  friend bool operator==(const set_refusal&, const set_refusal&) = default;
};
/// Which contributions everybody aggregates, by the collector's word.
struct delta_set {
  std::string unit;
  uint64_t round = 0;
  kernels::digest base_unit_hash{};
  std::string collector;
  std::vector<set_entry> members; ///< ascending by node id, none twice
  std::vector<set_refusal> refused;
  int64_t created_unix_ms = 0;
  friend bool operator==(const delta_set&, const delta_set&) = default;
};
std::string encode_delta_set(const delta_set& from);
caf::expected<delta_set> decode_delta_set(std::string_view payload);
signed_blob sign_delta_set(const node_identity& by, const delta_set& what);
caf::expected<delta_set> open_delta_set(const signed_blob& blob, int64_t now_unix_ms);

/// A driver says that the round's inner steps are over.
struct round_end {
  uint64_t round = 0;
  std::string architecture_id;
  std::string node_id;
  uint32_t inner_steps = 0;
  int64_t created_unix_ms = 0;
  friend bool operator==(const round_end&, const round_end&) = default;
};
std::string encode_round_end(const round_end& from);
caf::expected<round_end> decode_round_end(std::string_view payload);
signed_blob sign_round_end(const node_identity& by, const round_end& what);
caf::expected<round_end> open_round_end(const signed_blob& blob, int64_t now_unix_ms);

/// "embed", "head" or "layer.N", N decimal without leading zeros.
bool is_unit_name(std::string_view text);

} // namespace neuroshard
