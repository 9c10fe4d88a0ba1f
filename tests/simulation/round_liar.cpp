#include "tests/simulation/round_liar.hpp"

#include "actors/identity/wire.hpp"

#include <array>
#include <limits>

namespace neuroshard::simulation {

const char* to_string(lie what) noexcept {
  constexpr std::array<const char*, lies> words{"nan",        "scaling", "reversal",  "replay",
                                                "two_things", "garbage", "other_hash"};
  return words[static_cast<size_t>(what)];
}

round_liar::forged round_liar::forge(const delta_manifest& honest, const delta_part& part) {
  auto manifest = honest;
  if (what_ == lie::other_hash)
    manifest.base_unit_hash[0] ^= 1;
  delta_part data = part;
  if (what_ == lie::garbage) {
    std::string bytes(static_cast<size_t>(random_.between(0, 4'000)), '\0');
    for (auto& one : bytes)
      one = static_cast<char>(random_.next());
    data = std::make_shared<const std::string>(std::move(bytes));
  } else if (what_ != lie::other_hash) {
    const auto layout = std::make_shared<const unit_layout>(simulated_unit(honest.unit));
    const auto reader = delta_reader::open(layout, honest.encoding, {part});
    std::string bytes;
    for (size_t i = 0; i < layout->tensors.size(); ++i) {
      std::vector<float> values(layout->tensors[i].elements());
      if (reader)
        (void)reader->read(i, values);
      for (auto& value : values)
        value = what_ == lie::nan && random_.chance(0.01) ? std::numeric_limits<float>::quiet_NaN()
                : what_ == lie::scaling                   ? 1'000 * value
                : what_ == lie::reversal                  ? -10 * value
                : what_ == lie::two_things                ? value + 1e-4F * static_cast<float>(random_.unit())
                                                          : value;
      wire::put_bytes(bytes, 1, encode_slice(layout->tensors[i], delta_encoding::f32, 0, values, {}));
    }
    data = std::make_shared<const std::string>(std::move(bytes));
    manifest.encoding = delta_encoding::f32;
  }
  seal_parts(manifest, std::vector<delta_part>{data});
  return {sign_delta_manifest(*by_, manifest), data};
}

void round_liar::change(const std::string& to, signed_blob& blob, delta_part& part) {
  const auto manifest = decode_delta_manifest(blob.payload);
  if (!manifest || manifest->node_id != by_->node_id() || !part)
    return;
  if (what_ == lie::replay) {
    const auto& old = first_.emplace(manifest->unit, forged{blob, part}).first->second;
    blob = old.manifest;
    part = old.part;
    return;
  }
  const auto key = manifest->unit + " " + std::to_string(manifest->round) +
                   (what_ == lie::two_things ? to : std::string{});
  auto at = made_.find(key);
  if (at == made_.end())
    at = made_.emplace(key, forge(*manifest, part)).first;
  blob = at->second.manifest;
  part = at->second.part;
}

} // namespace neuroshard::simulation
