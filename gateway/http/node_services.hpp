#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/inference_scheduler/inference_scheduler_actor.hpp"
#include "actors/ledger/ledger_actor.hpp"
#include "actors/ledger/ledger_reader.hpp"
#include "actors/rate_limiter/rate_limiter_actor.hpp"
#include "actors/telemetry/snapshot.hpp"
#include "gateway/config/config_patch.hpp"
#include "gateway/config/node_config.hpp"
#include "kernels/core/sha256.hpp"

#include <caf/expected.hpp>
#include <caf/fwd.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What the HTTP gateway needs of the rest of the node. gateway/main.cpp fills it in; tests fill it with
/// scripted actors. The gateway sees nothing else: no supervisor, no database, no file of the data directory.
namespace neuroshard::http {

/// What a token may do. The wallet token may do everything.
enum class scope : uint8_t { read = 1, inference = 2, wallet = 4, admin = 8 };
inline constexpr uint8_t all_scopes = 15;
/// "read", "inference", "wallet", "admin".
const char* to_string(scope s) noexcept;
/// The bit of a scope's name; 0 for an unknown name.
uint8_t scope_bit(std::string_view name) noexcept;

/// A token that the gateway accepts: SHA-256 of its canonical form, and the scopes as bits.
struct known_token {
  kernels::digest digest{};
  uint8_t scopes = all_scopes;
};

/// A handle that the supervisor may replace when it restarts an actor. Thread safe; copies share the cell.
template <class Handle>
class actor_slot {
public:
  actor_slot() : cell_(std::make_shared<cell>()) {}
  explicit actor_slot(Handle h) : actor_slot() { set(std::move(h)); }
  void set(Handle h) const {
    const std::lock_guard hold(cell_->guard);
    cell_->handle = std::move(h);
  }
  /// Empty while the actor does not exist: the gateway then answers `not_ready`.
  Handle get() const {
    const std::lock_guard hold(cell_->guard);
    return cell_->handle;
  }

private:
  struct cell {
    std::mutex guard;
    Handle handle;
  };
  std::shared_ptr<cell> cell_;
};

/// What PATCH /config answers.
struct patch_outcome {
  std::vector<std::string> updated; ///< dotted names as sent
  bool restart_required = false;
};
using patch_reply = std::function<void(caf::expected<patch_outcome>)>;

struct node_services {
  caf::actor_system* system = nullptr; ///< outlives the server; the gateway spawns its one bridge actor in it
  snapshot_board_ptr board;
  counters_ptr counters;
  time_source_ptr clock = system_time();
  random_source_ptr random = system_random();

  actor_slot<rate_limiter_actor> rate_limiter;
  actor_slot<inference_scheduler_actor> scheduler;
  actor_slot<ledger_actor> ledger;
  /// Reads of the book; null while there is none: the wallet endpoints then answer `not_ready`.
  std::shared_ptr<const ledger_reader> book;

  /// The node's own token first. At most 64 of them are compared, in constant time.
  std::vector<known_token> tokens;

  /// The configuration in force, for GET /config. Any thread.
  std::function<std::shared_ptr<const node_config>()> config;
  /// Checks and applies a patch, all or nothing, and persists it; answers once, on any thread (plan_patch,
  /// then config.json, then the actors concerned). Must not block.
  std::function<void(patch_body, patch_reply)> patch_config;
};

} // namespace neuroshard::http
