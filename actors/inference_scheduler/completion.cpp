#include "actors/inference_scheduler/completion.hpp"

#include <utility>

namespace neuroshard {

std::optional<text_frame> completion::frame(std::string text) {
  if (text.empty())
    return std::nullopt;
  text_ += text;
  return text_frame{std::move(text), frames_++, std::exchange(logprob_unsent_, 0)};
}

std::optional<text_frame> completion::accept(int32_t token, double logprob) {
  if (token == static_cast<int32_t>(text::eos_id)) {
    end_ = completion_end::end_token;
    return cut();
  }
  produced_.push_back(token);
  logprob_ += logprob;
  logprob_unsent_ += logprob;
  std::string text = utf8_.push(stop_.push(tokens_.token_bytes(static_cast<text::token_id>(token))));
  if (stop_.stopped()) {
    end_ = completion_end::stop_string;
    text += utf8_.finish();
  } else if (produced_.size() >= tokens_max_) {
    end_ = completion_end::length;
    text += utf8_.push(stop_.finish());
    text += utf8_.finish();
  }
  return frame(std::move(text));
}

std::optional<text_frame> completion::cut() {
  std::string text = utf8_.push(stop_.finish());
  text += utf8_.finish();
  return frame(std::move(text));
}

} // namespace neuroshard
