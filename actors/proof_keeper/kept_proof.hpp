#pragma once

#include "actors/common/error.hpp"
#include "actors/ledger/work_proof.hpp"

#include <caf/expected.hpp>

#include <optional>
#include <string>

namespace neuroshard {

/// A proof as the book keeps it, with what was committed to while that is kept (24 hours).
struct kept_proof {
  work_proof proof;
  bool accepted = false;
  std::string reason;       ///< of a refusal
  std::string refuted;      ///< by what, since it was accepted
  std::string signed_bytes; ///< the SignedBlob as it was recorded
  std::optional<std::string> preimage;
};

/// Reads a proof from a ledger, which may be in use. Refusals: `not_found`, `data_loss` for a proof that
/// cannot be read, and those of opening the file.
caf::expected<kept_proof> find_kept_proof(const std::string& ledger_path, const kernels::digest& id);

} // namespace neuroshard
