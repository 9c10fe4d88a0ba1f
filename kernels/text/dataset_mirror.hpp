#pragma once

#include "kernels/text/dataset.hpp"

#include <string_view>

// Private to this folder: the part of prepare_dataset that reads a mirror.
namespace neuroshard::text {

bool is_mirror_url(std::string_view shards);

/// Manifest and tokenizer of a mirror, and the source that fetches its shards. Errors as prepare_dataset's.
kernels::status from_mirror(const dataset_options& how, const progress& watch, dataset& made);

} // namespace neuroshard::text
