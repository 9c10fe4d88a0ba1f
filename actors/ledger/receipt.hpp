#pragma once

#include "actors/identity/node_identity.hpp"
#include "kernels/core/sha256.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace neuroshard {

inline constexpr std::string_view receipt_tag = "neuroshard-receipt-v1";
inline constexpr std::string_view countersign_tag = "neuroshard-countersign-v1";
/// Bytes of a receipt and of a SignedBlob around one or two of them, at most.
inline constexpr size_t receipt_bytes_max = 1'024;
inline constexpr size_t receipt_blob_bytes_max = 8 * 1'024;

/// Numbers are those of the wire.
enum class receipt_kind : uint8_t { inference = 1, training };
const char* to_string(receipt_kind kind) noexcept;

/// Work one node did for another (spec/grpc-api.md, Receipt), in the words of the one that did it.
struct receipt {
  std::string worker_node_id; ///< 32 hex
  std::string driver_node_id; ///< 32 hex, another node
  receipt_kind kind = receipt_kind::inference;
  std::string work_id;      ///< the `inf_` id, or the training session: 1-128 printable ASCII characters
  uint32_t layer_begin = 0; ///< half open, at most 65,536
  uint32_t layer_end = 0;
  bool embedding = false;     ///< `embed` was run
  bool head = false;          ///< `head` was run
  uint64_t tokens = 0;        ///< positions computed (label tokens in training), at most 2^48
  uint64_t steps = 0;         ///< committed steps (training), at most 2^48
  uint64_t model_version = 0; ///< outer step, below 2^63
  int64_t started_unix_ms = 0;
  int64_t ended_unix_ms = 0; ///< not before it started, not after the year 9999
  std::array<uint8_t, 16> nonce{};

  /// Layers x tokens, the unit in which workers share a fee; the largest integer where it does not fit.
  uint64_t work() const noexcept;
  friend bool operator==(const receipt&, const receipt&) = default;
};

/// Protobuf bytes of message Receipt, fields in order, and back. Refusal: invalid_request, with the field
/// that is out of its bounds.
std::string encode_receipt(const receipt& from);
caf::expected<receipt> decode_receipt(std::string_view bytes);

/// A receipt's id: SHA-256 of its payload.
inline kernels::digest receipt_id_of(std::string_view payload) {
  return kernels::sha256::of(payload);
}

/// The bytes of the worker's SignedBlob. Refusals: invalid_request; forbidden when `by` is not the worker.
caf::expected<std::string> make_receipt(const node_identity& by, const receipt& of);
/// The bytes of the driver's SignedBlob, whose payload is the worker's. That it claims no more than the
/// driver counted, and the worker's signature (read_receipt), are for the caller to check
/// (countersign_within does). Refusals:
/// invalid_request; forbidden when `by` is not the driver.
caf::expected<std::string> countersign(const node_identity& by, std::string_view worker_blob);

/// A receipt whose signatures are right.
struct signed_receipt {
  receipt what;
  kernels::digest id{};
  blob_signer worker;
  std::optional<blob_signer> driver; ///< nothing: not confirmed
};
/// Reads both sides' words; `driver_blob` is empty while the driver has not counter-signed. Refusals:
/// invalid_request (malformed; `field` says which), unauthorized with reason `bad_signature`,
/// `bad_delegation`, `wrong_signer` (another node than the receipt names) or `other_receipt` (the driver
/// signed other bytes).
caf::expected<signed_receipt> read_receipt(std::string_view worker_blob, std::string_view driver_blob,
                                           int64_t now_unix_ms);

/// What a driver has counted of one node in one session: a receipt may claim this and no more.
struct receipt_terms {
  std::string worker_node_id;
  receipt_kind kind = receipt_kind::inference;
  std::string work_id;
  uint32_t layer_begin = 0;
  uint32_t layer_end = 0;
  bool embedding = false;
  bool head = false;
  uint64_t tokens = 0;
  uint64_t steps = 0;
  uint64_t model_version = 0;
};
/// A receipt with both sides' words.
struct countersigned_receipt {
  std::string worker_blob; ///< as the book takes them
  std::string driver_blob;
  signed_blob driver; ///< the same, as the worker is handed it back
  kernels::digest id{};
  std::string wallet; ///< of the worker
  receipt what;
};
/// Counter-signs what a worker claims, where it is its word, within the terms. Refusals: those of
/// read_receipt(); forbidden with reason `other_work` or `above_count`.
caf::expected<countersigned_receipt> countersign_within(const node_identity& driver,
                                                        const receipt_terms& terms,
                                                        const signed_blob& claimed, int64_t now_unix_ms);

} // namespace neuroshard
