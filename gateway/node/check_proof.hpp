#pragma once

#include "gateway/config/data_dir.hpp"
#include "gateway/config/load_config.hpp"

#include <iosfwd>
#include <span>
#include <string>

namespace neuroshard {

/// `neuroshard ledger check-proof ID [--void]`: repeats the first training step of a proof of this node and
/// compares it with what the proof committed to (spec/economics.md section 9, spot check). Works beside a
/// running node on the same data directory and only reads. `--void` acts on a refuted proof: the book counts
/// it as rejected, burns what is pending of its reward and records the offence; it takes the data directory's
/// lock, so no node may run. `args` begin with the word after `check-proof`. Returns the exit code: 0 the
/// proof agrees, 1 it is refuted (or the arguments are wrong), 3 it cannot be checked or voided: the book,
/// the checkpoint, the tokenizer or the data it needs is missing, in use or damaged, 4 no such device, 5 the
/// step failed.
int run_check_proof(std::span<const std::string> args, const loaded_config& loaded, const data_paths& paths,
                    std::ostream& out, std::ostream& err);

} // namespace neuroshard
