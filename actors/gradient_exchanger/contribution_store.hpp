#pragma once

#include "actors/gradient_exchanger/delta_codec.hpp"
#include "actors/gradient_exchanger/exchange_records.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace neuroshard {

/// A contribution while its parts arrive, in any order.
struct received_contribution {
  signed_blob blob;
  delta_manifest manifest;
  std::vector<delta_part> parts; ///< as many as the manifest names; null: not here yet
  size_t held = 0;
  uint64_t bytes = 0;
  bool unfit = false; ///< larger than any honest one: its parts were let go, it counts as one of bad shape

  bool complete() const noexcept { return unfit || held == parts.size(); }
};

enum class part_taken : uint8_t { stored, held_already, wrong_part };

/// The contributions to one unit in one round: one of each author, and those that a set names. Idempotent by
/// (author, content hash, part). Bounded: by the number of authors, and for each by what the unit's elements
/// can take. Signatures are the caller's to check. Owned by one actor.
class contribution_store {
public:
  contribution_store() = default;
  contribution_store(std::shared_ptr<const unit_layout> layout, size_t authors_max)
      : layout_(std::move(layout)), authors_max_(authors_max) {}

  /// The entry of that manifest, made where there is none. Null: there is no room, or another manifest of the
  /// author came first (who says two things is remembered); `wanted` sets the latter aside, for what a set
  /// names.
  received_contribution* admit(const signed_blob& blob, const delta_manifest& manifest, bool wanted = false);
  /// Takes a part whose hash is that of the manifest.
  part_taken put(received_contribution& into, uint32_t part, delta_part bytes);

  const received_contribution* find(const std::string& author, const kernels::digest& content) const;
  received_contribution* find(const std::string& author, const kernels::digest& content);
  /// Of any author: the first by node id.
  const received_contribution* find(const kernels::digest& content) const;
  /// What the author sent of its own accord.
  const received_contribution* of_author(const std::string& author) const;
  bool said_two_things(const std::string& author) const { return liars_.contains(author); }
  /// All, ascending by author.
  std::vector<const received_contribution*> all() const;
  void clear();

  uint64_t bytes() const noexcept;
  /// Most that one contribution may take.
  uint64_t bytes_max(delta_encoding encoding) const noexcept;

private:
  using key = std::pair<std::string, kernels::digest>;
  std::shared_ptr<const unit_layout> layout_;
  size_t authors_max_ = 0;
  std::map<key, received_contribution> held_;
  std::map<std::string, kernels::digest> first_; ///< content hash of each author's own
  std::set<std::string> liars_;
};

} // namespace neuroshard
