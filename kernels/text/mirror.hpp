#pragma once

#include "kernels/text/fetch.hpp"
#include "kernels/text/mirror_fetch.hpp"
#include "kernels/text/progress.hpp"
#include "kernels/text/shards.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::text {

/// The shards of a mirror, of which as many are in a local cache as the storage limit allows
/// (spec/training.md section 9). One thread fetches, in this order: what is held out, the shard in use, those
/// that come after it. Where room is wanted the least recently used shard goes, never the one in use and none
/// that comes soon.
///
/// Held out is `heldout.bin` where the manifest names one, else with 20 shards or more the highest id, else
/// the tail of each shard. The tails of shards that have no room here are kept by themselves: fetched once,
/// hashed while they pass, and only the tail stored.
///
/// The cache never exceeds the limit, except that what is held out and one shard always have room.
class shard_mirror final : public shard_source {
public:
  struct options {
    std::string url;       ///< of the directory, without a '/' at its end
    std::string directory; ///< the cache; made if missing
    shard_manifest manifest;
    uint32_t vocab_size = vocab_size_max;
    double held_out = 0.05;
    uint64_t storage_bytes_max = 100'000'000;
    std::shared_ptr<fetcher> from;
    retry_delays delays;
    /// Told of each failure and of each end of one, in the fetching thread; must not block. May be empty.
    std::function<void(const std::string& line)> tell;
    /// Asked while fetching, besides the mirror's own end. May be empty.
    std::function<bool()> cancelled;
  };

  /// Checks what the cache holds already, and removes what is of no use. `invalid_argument` for a manifest
  /// whose shards are larger than shards may be; `io` when the cache cannot be used.
  static kernels::result<std::shared_ptr<shard_mirror>> open(options how, const progress& watch = {});
  /// Ends the thread; waits until a fetch under way has noticed.
  ~shard_mirror() override;

  /// Starts the thread. Once.
  void start();
  /// What the thread does, one fetch at a time; false when there is nothing to do at `now`. For tests, which
  /// have no thread: not together with `start`.
  bool work_once(std::chrono::steady_clock::time_point now);

  const std::string& name() const noexcept override;
  std::span<const uint64_t> training_ids() const noexcept override;
  uint64_t training_size(size_t place) const noexcept override;
  uint64_t shard_bytes_max() const noexcept override;
  kernels::result<shard_lease> lease(size_t place) const override;
  shard_presence presence(size_t place) const override;
  void expect(size_t place) const override;
  size_t room() const noexcept override;
  token_view held_out() const override;

private:
  struct state;
  explicit shard_mirror(std::unique_ptr<state> held);
  std::unique_ptr<state> state_;
};

} // namespace neuroshard::text
