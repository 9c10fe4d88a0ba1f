#include "actors/inference_scheduler/stop_matcher.hpp"

#include <algorithm>
#include <utility>

namespace neuroshard {

stop_matcher::stop_matcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

std::string stop_matcher::push(std::string_view bytes) {
  if (stopped_)
    return {};
  held_.append(bytes);
  size_t match = std::string::npos;
  for (const auto& stop : stops_)
    match = std::min(match, held_.find(stop));
  if (match != std::string::npos) {
    stopped_ = true;
    held_.resize(match);
    return std::exchange(held_, {});
  }
  // The longest end of the text that begins a stop string stays.
  size_t keep = 0;
  for (const auto& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).substr(held_.size() - n) == std::string_view(stop).substr(0, n)) {
        keep = n;
        break;
      }
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string stop_matcher::finish() {
  return stopped_ ? std::string{} : std::exchange(held_, {});
}

} // namespace neuroshard
