#pragma once

#include "kernels/text/fetch.hpp"
#include "kernels/text/shards.hpp"
#include "kernels/text/tokenizer.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace neuroshard::test {

/// A mirror in memory, which can be told to misbehave.
class scripted_mirror final : public text::fetcher {
public:
  struct request {
    std::string file;
    uint64_t from;
    friend bool operator==(const request&, const request&) = default;
  };

  std::string url = "http://mirror.test/shards";
  std::map<std::string, std::string> files;
  std::map<std::string, uint64_t>
      breaks_after; ///< bytes of a file that are sent before the connection breaks
  bool reachable = true;
  bool takes_ranges = true;
  std::vector<request> requests;

  kernels::status get(const std::string& of, uint64_t from, const sink& to,
                      const std::function<bool()>& cancelled) override {
    const std::string file = of.substr(url.size() + 1);
    requests.push_back({file, from});
    const auto at = files.find(file);
    if (cancelled() || !reachable || at == files.end())
      return {kernels::code::unavailable, of + (reachable ? ": HTTP status 404" : ": cannot connect")};
    if (!takes_ranges)
      from = 0;
    NEUROSHARD_TRY(to.begin(from));
    uint64_t end = at->second.size();
    const auto stop = breaks_after.find(file);
    if (stop != breaks_after.end())
      end = std::min(end, from + stop->second);
    for (; from < end; from += 1000) { // in pieces, as from a network
      const uint64_t n = std::min<uint64_t>(1000, end - from);
      NEUROSHARD_TRY(to.take({reinterpret_cast<const uint8_t*>(at->second.data()) + from, n}));
    }
    if (end < at->second.size())
      return {kernels::code::unavailable, of + ": the connection broke"};
    return {};
  }

  uint64_t count(const std::string& file) const {
    return static_cast<uint64_t>(
        std::count_if(requests.begin(), requests.end(), [&](const request& r) { return r.file == file; }));
  }

  /// Shards 0 .. count - 1 of `tokens` tokens each: token t of shard s is 300 + 1000 s + t.
  text::shard_manifest fill(size_t count, size_t tokens) {
    text::shard_manifest made;
    made.tokenizer_hash = kernels::to_hex(text::tokenizer().hash());
    for (size_t s = 0; s < count; ++s) {
      std::string bytes(tokens * 4, '\0');
      for (size_t t = 0; t < tokens; ++t) {
        const auto id = static_cast<uint32_t>(300 + 1000 * s + t);
        std::memcpy(bytes.data() + 4 * t, &id, 4);
      }
      made.shards.push_back({s, tokens, kernels::to_hex(kernels::sha256::of(bytes)), "counting"});
      made.total_tokens += tokens;
      files[text::shard_file_name(s)] = std::move(bytes);
    }
    files["manifest.json"] = made.to_json();
    return made;
  }
};

} // namespace neuroshard::test
