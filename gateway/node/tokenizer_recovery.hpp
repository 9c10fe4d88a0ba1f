#pragma once

#include "kernels/core/status.hpp"
#include "kernels/model/architecture.hpp"

#include <string>

namespace neuroshard {

/// Puts the tokenizer of the newest checkpoint of architecture `of` in `folder` back to `path`, when the file
/// there is missing or cannot be read: a model without the tokenizer it was trained with is worth nothing,
/// and one learned anew might be another. An unreadable file is kept beside it as `*.damaged`. Returns the id
/// of the checkpoint it came from; empty when nothing had to be or could be done (no checkpoint, or none with
/// a sound copy). Errors: `io`. Any thread; call before anything else reads `path`.
kernels::result<std::string> recover_tokenizer(const std::string& path, const std::string& folder,
                                               const model::architecture& of);

} // namespace neuroshard
