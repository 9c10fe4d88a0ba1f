#pragma once

#include "actors/layer_worker/layer_worker_actor.hpp"
#include "kernels/model/serving_copy.hpp"

#include <caf/error.hpp>
#include <caf/expected.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>

namespace neuroshard {

/// What the worker remembers of each serving copy: what it is, since when a newer one has replaced it, and
/// its hash once that is computed. Does not keep copies alive. Used by one thread.
class serving_copies {
public:
  static constexpr int64_t retired_us_max = 120'000'000; ///< sessions may stay on an old copy for so long

  struct record {
    serving_info info;
    std::weak_ptr<const model::serving_copy> copy;
    int64_t retired_us = 0;                   ///< when a newer one came; 0: it is the newest
    std::string hash;                         ///< 64 hex; empty until known
    std::optional<caf::error> hash_failure{}; ///< why it never will be
  };

  void add(const model::serving_ptr& copy, uint64_t model_version, uint64_t inner_step, int64_t now_us);
  /// Null when there is no copy yet, or it is forgotten.
  const record* find(uint64_t copy_id) const;
  const record* newest() const;
  void set_hash(uint64_t copy_id, const caf::expected<std::string>& hash);
  /// Copies with an id below it have been replaced for 120 s: their sessions are to be evicted. Forgets those
  /// that nobody uses.
  uint64_t retire(int64_t now_us);
  size_t size() const noexcept { return records_.size(); }

private:
  std::map<uint64_t, record> records_;
};

} // namespace neuroshard
