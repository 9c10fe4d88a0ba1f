#pragma once

#include "kernels/text/dataset.hpp"

#include <cstdint>
#include <string>

namespace neuroshard::bench {

/// Tokenizer and shards of the text at `corpus`, made in `folder` by the first that asks and read there by
/// all others. `corpus` empty: the one that config/run has prepared. Ends the program where there is none.
text::dataset open_corpus(std::string corpus, const std::string& folder, uint32_t vocab_size);

} // namespace neuroshard::bench
