#pragma once

#include "gateway/config/data_dir.hpp"
#include "gateway/config/node_config.hpp"

#include <iosfwd>
#include <span>
#include <string>

namespace neuroshard {

/// `neuroshard ledger check-proof ID`: repeats the first training step of a proof of this node and compares
/// it with what the proof committed to (spec/economics.md section 9, spot check). Works beside a running node
/// on the same data directory and only reads. `args` begin with the word after `check-proof`. Returns the
/// exit code: 0 the proof agrees, 1 it is refuted (or the arguments are wrong), 3 it cannot be checked: the
/// book, the checkpoint, the tokenizer or the data it needs is missing or damaged, 4 no such device, 5 the
/// step failed.
int run_check_proof(std::span<const std::string> args, const node_config& c, const data_paths& paths,
                    std::ostream& out, std::ostream& err);

} // namespace neuroshard
