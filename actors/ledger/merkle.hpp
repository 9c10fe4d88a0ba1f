#pragma once

#include "kernels/core/sha256.hpp"

#include <vector>

namespace neuroshard {

/// Root over ids (spec/economics.md section 10): leaf = SHA-256(0x00 || id), node = SHA-256(0x01 || l || r),
/// ids sorted, an odd node promoted unchanged; of nothing: SHA-256("empty").
kernels::digest merkle_root(std::vector<kernels::digest> ids);

} // namespace neuroshard
