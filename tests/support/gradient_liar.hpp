#pragma once

#include "actors/gradient_exchanger/delta_codec.hpp"
#include "actors/identity/wire.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/model/parameters.hpp"
#include "tests/support/exchange_network.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// A member of an exchange that lies about what it has learned (spec/training.md section 7).
namespace neuroshard::test {

/// A contribution of one part, f32, of any values.
struct forged_contribution {
  signed_blob blob;
  delta_part data;
};
/// `value` gives the elements, counted through the unit.
inline forged_contribution forge(const node_identity& by, delta_manifest manifest, const unit_layout& layout,
                                 const std::function<float(size_t)>& value) {
  std::string part;
  size_t at = 0;
  for (const auto& tensor : layout.tensors) {
    std::vector<float> values(tensor.elements());
    for (auto& one : values)
      one = value(at++);
    wire::put_bytes(part, 1, encode_slice(tensor, delta_encoding::f32, 0, values, {}));
  }
  forged_contribution made;
  made.data = std::make_shared<const std::string>(std::move(part));
  manifest.encoding = delta_encoding::f32;
  seal_parts(manifest, std::vector<delta_part>{made.data});
  made.blob = sign_delta_manifest(by, manifest);
  return made;
}

/// Tensors of a unit, as every exchanger orders them.
inline unit_layout layout_of_unit(const model::architecture& shape, const std::string& unit) {
  unit_layout made;
  for (const auto& one : model::units_of(shape, 0, shape.num_layers, true, true))
    if (one.name == unit)
      for (const auto& parameter : one.parameters)
        made.tensors.push_back({parameter.name, parameter.shape});
  std::sort(made.tensors.begin(), made.tensors.end(),
            [](const auto& x, const auto& y) { return x.name < y.name; });
  return made;
}

/// Replaces what a member says of itself, in requests and in replies; fetches are left alone.
inline void replace_contributions(exchange_network& network, const std::string& id,
                                  std::function<void(signed_blob&, delta_part&)> how) {
  network.on_call = [id, how](const std::string& from, const std::string&, exchange_request& call) {
    if (from == id && call.manifest)
      how(*call.manifest, call.part_data);
    return true;
  };
  network.on_answer = [id, how](const std::string&, const std::string& to, exchange_reply& reply,
                                bool fetched) {
    if (to == id && !fetched && reply.reply_manifest && reply.reply_data)
      how(*reply.reply_manifest, reply.reply_data);
    return true;
  };
}

/// scaling: 100 times its contribution. reversal: -10 times. noise: normal of deviation 0.3. nan: one value
/// in a thousand is none. replay: its contribution of the first round, as it was. replay signed anew: its
/// values, signed for the present round.
inline const std::vector<std::string>& attack_names() {
  static const std::vector<std::string> all{"scaling", "reversal", "noise",
                                            "nan",     "replay",   "replay signed anew"};
  return all;
}

/// What one attack makes of a member's contributions; each is of one part.
class gradient_liar {
public:
  /// `normal` draws from a normal distribution of deviation 1.
  gradient_liar(std::shared_ptr<const node_identity> who, model::architecture shape, std::string attack,
                std::function<float()> normal)
      : who_(std::move(who)), shape_(std::move(shape)), attack_(std::move(attack)),
        normal_(std::move(normal)) {}

  /// Replaces an honest contribution; false where it cannot be read.
  bool lie(signed_blob& blob, delta_part& data) {
    auto manifest = decode_delta_manifest(blob.payload);
    if (!manifest)
      return false;
    const auto& first = first_.try_emplace(manifest->unit, forged_contribution{blob, data}).first->second;
    auto& mine = made_[{manifest->unit, manifest->round}];
    if (!mine.data && !make(*manifest, data, first, mine))
      return false;
    blob = mine.blob;
    data = mine.data;
    return true;
  }
  /// What it sends of a unit in a round; null before it was asked.
  const forged_contribution* of(const std::string& unit, uint64_t round) const {
    const auto at = made_.find({unit, round});
    return at == made_.end() ? nullptr : &at->second;
  }

private:
  bool make(delta_manifest manifest, const delta_part& honest, const forged_contribution& first,
            forged_contribution& into) const {
    if (attack_ == "replay") {
      into = first;
      return true;
    }
    if (attack_ == "replay signed anew") {
      into.data = first.data;
      seal_parts(manifest, std::vector<delta_part>{into.data});
      into.blob = sign_delta_manifest(*who_, manifest);
      return true;
    }
    const auto layout = std::make_shared<const unit_layout>(layout_of_unit(shape_, manifest.unit));
    const auto reader = delta_reader::open(layout, manifest.encoding, {honest});
    if (!reader)
      return false;
    std::vector<float> flat, values;
    for (size_t tensor = 0; tensor < layout->tensors.size(); ++tensor) {
      values.resize(layout->tensors[tensor].elements());
      if (reader->read(tensor, values))
        return false;
      flat.insert(flat.end(), values.begin(), values.end());
    }
    into = forge(*who_, manifest, *layout, [&](size_t at) {
      return attack_ == "scaling"    ? 100 * flat[at]
             : attack_ == "reversal" ? -10 * flat[at]
             : attack_ == "noise"    ? 0.3F * normal_()
             : at % 1'000 == 0       ? std::numeric_limits<float>::quiet_NaN()
                                     : flat[at];
    });
    return true;
  }

  std::shared_ptr<const node_identity> who_;
  model::architecture shape_;
  std::string attack_;
  std::function<float()> normal_;
  std::map<std::string, forged_contribution> first_; ///< by unit
  std::map<std::pair<std::string, uint64_t>, forged_contribution> made_;
};

} // namespace neuroshard::test
