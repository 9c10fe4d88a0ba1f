#pragma once

#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"
#include "kernels/text/utf8.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::text {

using token_id = uint32_t;

inline constexpr token_id pad_id = 0;
inline constexpr token_id bos_id = 1;
inline constexpr token_id eos_id = 2;
inline constexpr token_id unk_id = 3;
inline constexpr token_id first_byte_id = 10;   ///< byte b is id 10 + b
inline constexpr token_id first_merge_id = 266; ///< merges follow in learning order
inline constexpr uint32_t vocab_size_max = 10'000'000;
/// Bytes that one token may stand for. Keeps a hostile merge table, in which each merge doubles the one
/// before it, from turning a few ids into gigabytes; text has no tokens near it.
inline constexpr uint32_t token_bytes_max = 1024;

/// Two adjacent tokens that become one; its id is `first_merge_id` + its place in the list.
struct merge {
  token_id left = 0;
  token_id right = 0;
  friend bool operator==(const merge&, const merge&) = default;
};

/// A byte-level byte-pair tokenizer (spec/model.md section 7). A small handle to immutable shared state:
/// copying is cheap, and any number of threads may use one tokenizer or its copies at the same time.
class tokenizer {
public:
  /// Bytes only: no merges, vocabulary of 266.
  tokenizer();

  /// Takes a merge table. Refuses (`invalid_argument`) merges that name specials, reserved ids or later ids,
  /// occur twice, exceed vocab_size_max or make a token longer than token_bytes_max.
  static kernels::result<tokenizer> from_merges(std::vector<merge> merges);
  /// Reads the JSON form. `name` stands in front of the error line. Hostile input is refused with `corrupt`.
  static kernels::result<tokenizer> parse(std::string_view json, std::string_view name);
  /// Reads a file that `save` wrote; `io` when it cannot be read, `corrupt` when it is no tokenizer.
  static kernels::result<tokenizer> load(const std::string& path);
  /// Writes the file atomically (mode 0644).
  kernels::status save(const std::string& path) const;
  std::string to_json() const;

  /// All ids are below it: 266 + number of merges.
  uint32_t vocab_size() const noexcept;
  std::span<const merge> merges() const noexcept;
  /// SHA-256 of the merges as little-endian u32 triples (left, right, id) in id order.
  const kernels::digest& hash() const noexcept;

  /// Appends the ids of any bytes; never a special, and without BOS or EOS. Takes O(n log n). No
  /// normalization.
  void encode(std::string_view bytes, std::vector<token_id>& out) const;
  std::vector<token_id> encode(std::string_view bytes) const;

  /// The bytes of one token; empty for specials, reserved and unknown ids.
  std::string token_bytes(token_id id) const;
  void append_token_bytes(token_id id, std::string& out) const;
  /// decode_bytes(encode(b)) == b for all b. Specials are skipped.
  std::string decode_bytes(std::span<const token_id> ids) const;
  /// decode_bytes with U+FFFD in place of what is no UTF-8.
  std::string decode_text(std::span<const token_id> ids) const;

private:
  struct state;
  explicit tokenizer(std::shared_ptr<const state> held);
  std::shared_ptr<const state> state_;
};

} // namespace neuroshard::text
