#pragma once

#include "actors/common/clock.hpp"
#include "actors/common/counters.hpp"
#include "actors/supervisor/restart_budget.hpp"
#include "actors/supervisor/supervisor_actor.hpp"

#include <caf/response_promise.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Makes one front for each actor of a node. All are ended by the supervisor's `stop_node`.
node_actors make_fronts(caf::actor_system& system);

struct supervisor_state {
  static inline const char* name = "supervisor";
  using pointer = supervisor_actor::stateful_pointer<supervisor_state>;

  struct group {
    start_group plan;
    std::map<caf::actor_addr, std::string> alive; ///< running members by address
    restart_budget budget;
    uint64_t attempt = 0;          ///< number of its start; answers to an earlier one are void
    caf::response_promise first{}; ///< of who asked for the group, until some start of it has an outcome
    bool ending = false;           ///< members are being ended; restarted when all are gone
    bool renewed = false;          ///< ended to be made anew, which is no failure
    bool failed = false;           ///< budget spent, or it could not be made
  };

  node_actors actors;
  time_source_ptr time;
  counters_ptr counters;
  std::vector<group> groups; ///< in the order of their start; ended in the reverse order
  bool stopping = false;
  int64_t stop_deadline_us = 0; ///< of the ledger's closing, the last stage that is waited for
  caf::response_promise stopped;

  /// Spawns all members of a group and points their fronts at them.
  caf::error spawn(pointer self, group& g);
  /// The group's start procedure, as a new attempt; ends in finish_begin with an error or none.
  void begin(pointer self, size_t index);
  void begin_model(pointer self, size_t index);
  void finish_begin(size_t index, uint64_t attempt, const caf::error& why);
  void on_down(pointer self, const caf::down_msg& down);
  void end_members(group& g);
  void renew(pointer self, const std::string& group_name);
  void restart(pointer self, size_t index);
  void give_up(group& g, const caf::error& why);

  // The stages of a clean end, each calling the next whatever its outcome, and together bounded.
  std::chrono::milliseconds patience(std::chrono::milliseconds most, std::chrono::milliseconds kept) const;
  template <class Front, class Message>
  void stop_stage(pointer self, const char* who, const Front& whom, std::chrono::milliseconds within,
                  Message message, void (supervisor_state::*next)(pointer));
  void stop_inference(pointer self);
  void stop_trainer(pointer self);
  void stop_checkpointer(pointer self);
  void leave_peers(pointer self);
  void close_ledger(pointer self);
  void end_children(pointer self);
  void end_if_alone(pointer self);
  void leave_behind();
};

/// Scheduled; never blocks.
supervisor_actor::behavior_type supervisor(supervisor_state::pointer self, node_actors actors,
                                           time_source_ptr time, counters_ptr counters);

} // namespace neuroshard
