#include "kernels/text/files.hpp"
#include "kernels/text/json_input.hpp"
#include "kernels/text/tokenizer.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

// Ten million merges of the longest spelling have about 280 MB.
constexpr uint64_t file_bytes_max = uint64_t{512} << 20;

struct numbered_merge {
  uint64_t id;
  merge pair;
};

// "left_right" in plain decimal.
std::optional<merge> parse_pair(std::string_view key) {
  const size_t bar = key.find('_');
  if (bar == std::string_view::npos)
    return std::nullopt;
  const auto number = [](std::string_view digits) -> std::optional<token_id> {
    token_id value = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool plain = problem == std::errc{} && end == digits.data() + digits.size() &&
                       (digits.size() == 1 || digits.front() != '0');
    return plain ? std::optional(value) : std::nullopt;
  };
  const auto left = number(key.substr(0, bar));
  const auto right = number(key.substr(bar + 1));
  return left && right ? std::optional(merge{*left, *right}) : std::nullopt;
}

// Reads the three fields that count while the parser runs; everything else may be there and is passed over.
class file_handler : public rapidjson::BaseReaderHandler<rapidjson::UTF8<>, file_handler> {
public:
  std::vector<numbered_merge> merges;
  std::optional<uint64_t> vocab_size;
  std::optional<uint64_t> next_merge_id;
  bool has_merges = false;
  std::string problem;

  bool Null() { return other(); }
  bool Bool(bool) { return other(); }
  bool Int(int) { return other(); } // the reader calls it for negative numbers only
  bool Uint(unsigned value) { return number(value); }
  bool Int64(int64_t) { return other(); }
  bool Uint64(uint64_t value) { return number(value); }
  bool Double(double) { return other(); }
  bool String(const char*, rapidjson::SizeType, bool) { return other(); }
  bool StartArray() { return open(false); }
  bool EndArray(rapidjson::SizeType) { return close(); }
  bool StartObject() { return open(true); }
  bool EndObject(rapidjson::SizeType) { return close(); }

  bool Key(const char* text, rapidjson::SizeType length, bool) {
    const std::string_view key(text, length);
    if (depth_ == 1) {
      field_ = key == "vocab_size"      ? field::vocab_size
               : key == "next_merge_id" ? field::next_merge_id
               : key == "merges"        ? field::merges
                                        : field::other;
      const bool repeated = (field_ == field::vocab_size && vocab_size) ||
                            (field_ == field::next_merge_id && next_merge_id) ||
                            (field_ == field::merges && has_merges);
      return repeated ? refuse("has \"" + std::string(key) + "\" twice") : true;
    }
    if (depth_ == 2 && field_ == field::merges) {
      const auto pair = parse_pair(key);
      if (!pair)
        return refuse("\"" + std::string(key.substr(0, 40)) + "\" is no pair of ids");
      pair_ = *pair;
    }
    return true;
  }

private:
  enum class field { other, vocab_size, next_merge_id, merges };

  bool refuse(std::string why) {
    problem = std::move(why);
    return false;
  }

  bool number(uint64_t value) {
    if (depth_ == 2 && field_ == field::merges) {
      if (merges.size() >= vocab_size_max - first_merge_id)
        return refuse("has more than " + std::to_string(vocab_size_max) + " tokens");
      merges.push_back({value, pair_});
      return true;
    }
    if (depth_ == 1 && field_ == field::vocab_size)
      vocab_size = value;
    else if (depth_ == 1 && field_ == field::next_merge_id)
      next_merge_id = value;
    else
      return other();
    return true;
  }

  bool other() {
    if (depth_ == 0)
      return refuse("is no JSON object");
    if (field_ == field::other)
      return true;
    return refuse(field_ == field::merges ? "\"merges\" is no object of ids"
                                          : "has a size that is no whole number");
  }

  bool open(bool object) {
    if (++depth_ > json_depth_max)
      return refuse("is nested too deeply");
    if (depth_ == 1)
      return object ? true : refuse("is no JSON object");
    if (depth_ == 2 && field_ == field::merges && object)
      return has_merges = true;
    return field_ == field::other ? true : other();
  }

  bool close() {
    --depth_;
    return true;
  }

  uint32_t depth_ = 0;
  field field_ = field::other;
  merge pair_;
};

} // namespace

result<tokenizer> tokenizer::parse(std::string_view json, std::string_view name) {
  const auto corrupt = [&](const std::string& why) {
    return status{code::corrupt, std::string(name) + ": not a tokenizer: " + why};
  };
  file_handler read;
  if (const std::string problem = parse_json(json, read); !problem.empty())
    return corrupt(read.problem.empty() ? problem : read.problem);
  if (!read.has_merges || !read.vocab_size || !read.next_merge_id)
    return corrupt("needs \"vocab_size\", \"next_merge_id\" and \"merges\"");
  std::sort(read.merges.begin(), read.merges.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  std::vector<merge> merges;
  merges.reserve(read.merges.size());
  for (const auto& [id, pair] : read.merges) {
    if (id != first_merge_id + merges.size())
      return corrupt("merge ids are not dense from 266 (" + std::to_string(id) + " in place " +
                     std::to_string(first_merge_id + merges.size()) + ")");
    merges.push_back(pair);
  }
  if (*read.next_merge_id != first_merge_id + merges.size())
    return corrupt("next_merge_id is " + std::to_string(*read.next_merge_id) + ", with " +
                   std::to_string(merges.size()) + " merges it is " +
                   std::to_string(first_merge_id + merges.size()));
  if (*read.vocab_size < *read.next_merge_id || *read.vocab_size > vocab_size_max)
    return corrupt("vocab_size is " + std::to_string(*read.vocab_size) + ", allowed are " +
                   std::to_string(*read.next_merge_id) + " to " + std::to_string(vocab_size_max));
  auto made = from_merges(std::move(merges));
  if (!made)
    return corrupt(made.status().message());
  return made;
}

result<tokenizer> tokenizer::load(const std::string& path) {
  auto content = read_file(path, file_bytes_max);
  if (!content)
    return content.status();
  return parse(*content, path);
}

std::string tokenizer::to_json() const {
  const std::string size = std::to_string(vocab_size());
  std::string out = "{\"vocab_size\": " + size + ", \"next_merge_id\": " + size + ", \"merges\": {";
  token_id id = first_merge_id;
  for (const merge& m : merges()) {
    out += id == first_merge_id ? "\n\"" : ",\n\"";
    out += std::to_string(m.left) + "_" + std::to_string(m.right) + "\": " + std::to_string(id);
    ++id;
  }
  out += "}}\n";
  return out;
}

status tokenizer::save(const std::string& path) const {
  return write_file(path, to_json());
}

} // namespace neuroshard::text
