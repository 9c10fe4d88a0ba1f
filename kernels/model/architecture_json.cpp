#include "kernels/core/sha256.hpp"
#include "kernels/model/architecture.hpp"

#include <array>
#include <charconv>

namespace neuroshard::model {

using kernels::code;
using kernels::result;
using kernels::status;

namespace {

/// One key of the canonical form, in sorted order; exactly one member pointer is set.
struct json_key {
  std::string_view name;
  int64_t architecture::*integer = nullptr;
  std::string architecture::*text = nullptr;
  bool architecture::*flag = nullptr;
};

constexpr std::array<json_key, 12> keys{{
    {"ffn_dim", &architecture::ffn_dim, nullptr, nullptr},
    {"hidden_dim", &architecture::hidden_dim, nullptr, nullptr},
    {"max_seq_len", &architecture::max_seq_len, nullptr, nullptr},
    {"norm_eps", nullptr, &architecture::norm_eps, nullptr},
    {"num_experts", &architecture::num_experts, nullptr, nullptr},
    {"num_heads", &architecture::num_heads, nullptr, nullptr},
    {"num_kv_heads", &architecture::num_kv_heads, nullptr, nullptr},
    {"num_layers", &architecture::num_layers, nullptr, nullptr},
    {"rope_base", nullptr, &architecture::rope_base, nullptr},
    {"tie_embeddings", nullptr, nullptr, &architecture::tie_embeddings},
    {"top_k", &architecture::top_k, nullptr, nullptr},
    {"vocab_capacity", &architecture::vocab_capacity, nullptr, nullptr},
}};

constexpr size_t json_bytes_max = 4096;

/// Reads the one flat object that describes an architecture. No escapes, no nesting, no fractions: none can
/// occur in it, and the text comes from files and peers.
class flat_reader {
public:
  explicit flat_reader(std::string_view text) : text_(text) {}

  status read(architecture& out) {
    std::array<bool, keys.size()> seen{};
    if (!take('{'))
      return refuse("does not begin with {");
    do {
      std::string_view name;
      if (!string(name) || !take(':'))
        return refuse("a key is malformed");
      size_t at = 0;
      while (at < keys.size() && keys[at].name != name)
        ++at;
      if (at == keys.size())
        return refuse("key \"" + std::string(name.substr(0, 40)) + "\" is unknown");
      if (seen[at])
        return refuse("key \"" + std::string(name) + "\" occurs twice");
      seen[at] = true;
      if (!value(keys[at], out))
        return refuse("the value of \"" + std::string(name) + "\" is malformed");
    } while (take(','));
    if (!take('}') || (blanks(), at_ != text_.size()))
      return refuse("does not end with }");
    for (size_t i = 0; i < keys.size(); ++i)
      if (!seen[i])
        return refuse("key \"" + std::string(keys[i].name) + "\" is missing");
    return {};
  }

private:
  static status refuse(std::string what) { return {code::corrupt, "architecture JSON: " + std::move(what)}; }

  void blanks() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }
  bool take(char c) {
    blanks();
    if (at_ >= text_.size() || text_[at_] != c)
      return false;
    ++at_;
    return true;
  }
  bool string(std::string_view& out) {
    if (!take('"'))
      return false;
    const size_t end = text_.find('"', at_);
    if (end == std::string_view::npos)
      return false;
    out = text_.substr(at_, end - at_);
    at_ = end + 1;
    for (char c : out)
      if (c < ' ' || c > '~' || c == '\\')
        return false;
    return true;
  }
  bool word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected)
      return false;
    at_ += expected.size();
    return true;
  }
  bool value(const json_key& key, architecture& out) {
    blanks();
    if (key.text != nullptr) {
      std::string_view text;
      if (!string(text))
        return false;
      out.*key.text = std::string(text);
      return true;
    }
    if (key.flag != nullptr) {
      out.*key.flag = at_ < text_.size() && text_[at_] == 't';
      return word(out.*key.flag ? "true" : "false");
    }
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + text_.size();
    const bool leading_zero = end - begin > 1 && begin[0] == '0' && begin[1] >= '0' && begin[1] <= '9';
    const auto [rest, error] = std::from_chars(begin, end, out.*key.integer);
    if (error != std::errc{} || leading_zero)
      return false;
    at_ += static_cast<size_t>(rest - begin);
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
};

} // namespace

std::string canonical_json(const architecture& a) {
  std::string out = "{";
  for (const json_key& key : keys) {
    if (out.size() > 1)
      out += ',';
    out.append("\"").append(key.name).append("\":");
    if (key.text != nullptr)
      out.append("\"").append(a.*key.text).append("\"");
    else if (key.flag != nullptr)
      out += a.*key.flag ? "true" : "false";
    else
      out += std::to_string(a.*key.integer);
  }
  return out + "}";
}

result<architecture> parse_architecture(std::string_view json) {
  if (json.size() > json_bytes_max)
    return status(code::corrupt,
                  "architecture JSON: longer than " + std::to_string(json_bytes_max) + " bytes");
  architecture a;
  NEUROSHARD_TRY(flat_reader(json).read(a));
  NEUROSHARD_TRY(check(a));
  return a;
}

} // namespace neuroshard::model
