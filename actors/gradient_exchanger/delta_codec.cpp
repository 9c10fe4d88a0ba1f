#include "actors/gradient_exchanger/delta_codec.hpp"

#include "actors/common/error.hpp"
#include "actors/identity/wire.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace neuroshard {

namespace {

constexpr uint64_t slice_elements_max = uint64_t{1} << 20;

caf::error refuse_delta(const char* reason, const char* message) {
  problem what;
  what.message = message;
  what.reason = reason;
  return refuse(errc::invalid_request, std::move(what));
}

/// So many elements fit a part in every encoding: at most four bytes for an index of that range, one for the
/// value, a share of a scale; f32 takes four. A kilobyte is kept for name and keys.
uint64_t slice_elements_of(size_t part_bytes_max) {
  const uint64_t fit = (part_bytes_max - 1'024) / 7 / delta_slice_grain * delta_slice_grain;
  return std::clamp(fit, delta_slice_grain, slice_elements_max);
}

/// Fills parts with slices in order.
class part_filler {
public:
  explicit part_filler(size_t bytes_max) : bytes_max_(bytes_max) {}

  bool add(const std::string& slice) {
    std::string entry;
    wire::put_bytes(entry, 1, slice);
    if (entry.size() > bytes_max_)
      return false;
    if (now_.size() + entry.size() > bytes_max_)
      close();
    now_ += entry;
    return made_.size() < delta_parts_max;
  }
  std::vector<delta_part> finish() {
    if (!now_.empty())
      close();
    return std::move(made_);
  }

private:
  void close() {
    made_.push_back(std::make_shared<const std::string>(std::move(now_)));
    now_.clear();
  }
  size_t bytes_max_;
  std::string now_;
  std::vector<delta_part> made_;
};

bool add_tensor(part_filler& parts, const tensor_shape& of, delta_encoding encoding,
                std::span<const float> values, const delta_options& how) {
  const uint64_t step = slice_elements_of(how.part_bytes_max);
  std::vector<uint64_t> all;
  if (encoding == delta_encoding::topk_i8)
    all = largest_magnitudes(values, how.top_k_ratio);
  std::vector<uint32_t> picked;
  size_t at = 0;
  for (uint64_t first = 0; first < values.size(); first += step) {
    const uint64_t count = std::min<uint64_t>(step, values.size() - first);
    picked.clear();
    for (; at < all.size() && all[at] < first + count; ++at)
      picked.push_back(static_cast<uint32_t>(all[at] - first));
    if (!parts.add(encode_slice(of, encoding, first, values.subspan(first, count), picked)))
      return false;
  }
  return true;
}

} // namespace

std::vector<uint64_t> largest_magnitudes(std::span<const float> x, double ratio) {
  std::vector<uint64_t> picked;
  if (x.empty())
    return picked;
  const auto wanted = static_cast<uint64_t>(std::floor(ratio * static_cast<double>(x.size())));
  const uint64_t k = std::clamp<uint64_t>(wanted, 1, x.size());
  std::vector<float> sizes(x.size());
  std::transform(x.begin(), x.end(), sizes.begin(), [](float value) { return std::fabs(value); });
  const auto least = sizes.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(sizes.begin(), least, sizes.end(), std::greater<>());
  const float bar = *least;
  uint64_t at_bar =
      k - static_cast<uint64_t>(std::count_if(sizes.begin(), least, [&](float size) { return size > bar; }));
  picked.reserve(k);
  for (uint64_t i = 0; i < x.size(); ++i) {
    const float size = std::fabs(x[i]);
    if (size > bar || (size == bar && at_bar > 0)) {
      at_bar -= size == bar;
      picked.push_back(i);
    }
  }
  return picked;
}

caf::expected<std::vector<delta_part>>
encode_delta(const unit_layout& layout, const delta_options& how,
             const std::function<caf::error(size_t tensor, std::span<float> out)>& values) {
  if (!layout.well_formed() || !(how.top_k_ratio > 0 && how.top_k_ratio <= 1) ||
      how.part_bytes_max < delta_part_bytes_min || how.part_bytes_max > delta_part_bytes_max)
    return refuse_delta("bad_options", "The layout, the ratio or the size of parts is out of bounds.");
  part_filler parts(how.part_bytes_max);
  std::vector<float> now;
  now.reserve(layout.largest());
  for (size_t tensor = 0; tensor < layout.tensors.size(); ++tensor) {
    const auto& of = layout.tensors[tensor];
    now.resize(of.elements());
    if (auto refused = values(tensor, now))
      return refused;
    if (!std::all_of(now.begin(), now.end(), [](float value) { return std::isfinite(value); }))
      return refuse_delta("not_finite", "A pseudo-gradient has values that are not finite.");
    if (!add_tensor(parts, of, encoding_of(how.encoding, now.size()), now, how))
      return refuse_delta("too_many_parts", "A contribution has more parts than may be sent.");
  }
  return parts.finish();
}

caf::expected<delta_reader> delta_reader::open(std::shared_ptr<const unit_layout> layout,
                                               delta_encoding encoding, std::vector<delta_part> parts,
                                               size_t part_bytes_max) {
  const auto bad = [](const char* message) { return refuse_delta("bad_shape", message); };
  if (!layout || !layout->well_formed() || parts.empty() || parts.size() > delta_parts_max)
    return bad("A contribution has no parts or too many.");
  delta_reader made;
  made.slices_.resize(layout->tensors.size());
  size_t tensor = 0;
  uint64_t covered = 0; // elements of `tensor`
  for (const auto& part : parts) {
    caf::error wrong;
    const auto add = [&](const wire::field& field) {
      if (field.number != 1)
        return true;
      size_t of = 0;
      auto slice = field.is_bytes() ? read_slice(field.bytes, *layout, encoding, of)
                                    : caf::expected<delta_slice>(bad("A part is malformed."));
      if (!slice) {
        wrong = slice.error();
        return false;
      }
      if (tensor < layout->tensors.size() && covered == layout->tensors[tensor].elements()) {
        ++tensor;
        covered = 0;
      }
      if (of != tensor || slice->first != covered)
        return false;
      covered += slice->count;
      made.slices_[tensor].push_back(*slice);
      return true;
    };
    if (!part || !wire::read_fields(*part, add, part_bytes_max))
      return wrong ? wrong : bad("The slices of a contribution are out of order or malformed.");
  }
  if (tensor + 1 != layout->tensors.size() || covered != layout->tensors[tensor].elements())
    return bad("A contribution does not cover its unit.");
  made.layout_ = std::move(layout);
  made.parts_ = std::move(parts);
  return made;
}

caf::error delta_reader::read(size_t tensor, std::span<float> out) const {
  if (tensor >= slices_.size() || out.size() != layout_->tensors[tensor].elements())
    return refuse(errc::internal, "A tensor of another shape was asked for.");
  for (const auto& slice : slices_[tensor])
    if (auto wrong = decode_slice(slice, out.subspan(slice.first, slice.count)))
      return wrong;
  return {};
}

} // namespace neuroshard
