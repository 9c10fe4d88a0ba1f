#pragma once

#include "actors/peer_link/peer_link_actor.hpp"
#include "actors/peer_manager/membership.hpp"

#include <cstdint>
#include <set>
#include <string>
#include <vector>

/// Whose weights stand (spec/training.md section 4, spec/network.md section 3): pure functions over what the
/// holders of the units announce in their signed records.
///
/// Of a unit, holders at one outer step with the same weights and the same velocity are a group. The largest
/// group stands; a tie goes to the higher outer step, then to the group with the lowest node id. Outer step 0
/// is no group: its weights follow from the seed, everybody has them, and they stand against nobody who has
/// trained.
namespace neuroshard {

/// What this node holds.
struct own_weights {
  std::string node_id;
  std::string architecture_id;
  uint64_t version = 0;           ///< outer step that its weights are of
  std::vector<std::string> units; ///< that it holds
  std::vector<unit_state> known;  ///< what they are at that outer step, as far as it is known yet
  bool base_lost = false;         ///< steps were taken since, and the outer step's own weights are gone
};

/// Units that one and the same node can give.
struct weights_part {
  std::vector<unit_state> units;
  std::vector<peer_address> candidates; ///< the best first
};
struct standing_weights {
  enum class place : uint8_t {
    alone,   ///< nobody else has trained weights of a unit that is held here
    in_step, ///< this node is among those whose weights stand
    apart,   ///< it is not; `parts` says what stands
    /// It is not, but what stands is of different outer steps, or nobody can be asked for it; or somebody
    /// holds what is held here and has not said yet what it is.
    unsettled,
  };
  place where = place::alone;
  uint64_t version = 0;            ///< apart: outer step of what stands
  std::vector<weights_part> parts; ///< apart: every held unit that others have; the rest is kept
};

inline constexpr size_t part_candidates_max = 8;

/// `avoid`: node ids that could not give what they announce; they are asked last.
standing_weights find_standing(const own_weights& own, const peer_list& peers,
                               const std::set<std::string>& avoid = {});

} // namespace neuroshard
