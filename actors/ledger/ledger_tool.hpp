#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace neuroshard {

/// `neuroshard ledger verify|export [...]` on a data directory. Works beside a running node (it only reads).
/// `args` begin with the word after `ledger`:
///   verify [--signatures]
///   export [--format jsonl|csv] [--output FILE]
///   --help, which needs no data directory
/// Returns the exit code: 0 all well, 1 bad arguments, 3 the book cannot be read or is not in order.
int run_ledger_tool(const std::vector<std::string>& args, const std::string& data_dir, std::ostream& out,
                    std::ostream& err);

} // namespace neuroshard
