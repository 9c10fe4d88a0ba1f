#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neuroshard::bench {

/// What everybody would write first: double-entry transfers in SQLite (WAL, synchronous=FULL), a commit for
/// each. Answers the seconds of every transfer; empty when SQLite failed. `path` is made anew.
std::vector<double> single_commits(const std::string& path, uint64_t transfers);

} // namespace neuroshard::bench
