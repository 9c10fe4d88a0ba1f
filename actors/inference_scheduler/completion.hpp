#pragma once

#include "actors/inference_scheduler/stop_matcher.hpp"
#include "kernels/text/tokenizer.hpp"
#include "kernels/text/utf8_stream.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neuroshard {

/// Why a completion is over.
enum class completion_end : uint8_t { none, end_token, stop_string, length };

/// A piece of text that goes to the reader: valid UTF-8, with the sum of the log-probabilities of the tokens
/// it came from.
struct text_frame {
  std::string text;
  uint32_t index = 0;
  double logprob = 0;
};

/// What one generation has produced: tokens, and the text of them as a reader may see it. Bytes of an
/// unfinished character and text that may begin a stop string are held back. Plain logic; one per generation.
class completion {
public:
  completion(text::tokenizer tokens, std::vector<std::string> stops, uint32_t tokens_max)
      : tokens_(std::move(tokens)), stop_(std::move(stops)), tokens_max_(tokens_max) {}

  /// Takes the next sampled token; the frame that became complete with it, if any. The end token is neither
  /// text nor counted.
  std::optional<text_frame> accept(int32_t token, double logprob);
  /// The generation ends for another reason: what was held back.
  std::optional<text_frame> cut();

  completion_end end() const noexcept { return end_; }
  const std::vector<int32_t>& produced() const noexcept { return produced_; }
  uint32_t count() const noexcept { return static_cast<uint32_t>(produced_.size()); }
  const std::string& text() const noexcept { return text_; }
  double logprob() const noexcept { return logprob_; } ///< of all tokens counted

private:
  std::optional<text_frame> frame(std::string text);

  text::tokenizer tokens_;
  stop_matcher stop_;
  text::utf8_stream utf8_;
  uint32_t tokens_max_;
  std::vector<int32_t> produced_;
  std::string text_;
  uint32_t frames_ = 0;
  double logprob_ = 0;
  double logprob_unsent_ = 0;
  completion_end end_ = completion_end::none;
};

} // namespace neuroshard
