#pragma once

#include <cstdint>
#include <string>

namespace neuroshard::simulation {

/// How one schedule ended.
struct outcome {
  std::string failure;    ///< the invariant that does not hold; empty: all hold
  uint64_t trace = 0;     ///< the same for the same seed
  int64_t virtual_us = 0; ///< time that passed in it
  uint64_t messages = 0;  ///< handled by actors
};

/// A kind of world with its faults and invariants. `printed`: its trace goes to standard output.
struct scenario {
  const char* name;
  outcome (*run)(uint64_t seed, bool printed);
  uint64_t fixed_seeds; ///< from 1 on, that the tests run each time
  bool random_too;      ///< random ones as well, when nobody asks for them
};

/// Peer managers that join, leave, crash, come back and are cut off: they end with one map.
outcome membership(uint64_t seed, bool printed);
/// Outer steps of 2 to 6 nodes with faults and a liar: what is counted is what was agreed on, once, and all
/// end with equal weights.
outcome rounds(uint64_t seed, bool printed);
/// Generations over three stages with replicas that fail: each ends, with the text it would have had, is paid
/// once, and leaves nothing behind.
outcome generations(uint64_t seed, bool printed);

} // namespace neuroshard::simulation
