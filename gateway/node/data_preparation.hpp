#pragma once

#include "gateway/config/node_config.hpp"
#include "kernels/model/architecture.hpp"
#include "kernels/text/dataset.hpp"

#include <memory>
#include <string>

namespace neuroshard {

/// What a node needs before its model can be made.
struct prepared_data {
  std::shared_ptr<const text::dataset> data;     ///< null: nothing to train on
  std::shared_ptr<const text::tokenizer> tokens; ///< never null
};

/// Where the text is, and where what is made of it goes.
struct data_places {
  std::string cache;       ///< shards
  std::string checkpoints; ///< a lost tokenizer is taken from here
  std::string software;    ///< told to a mirror
};

/// Opens tokenizer and shards, or makes them of the corpus or fetches them; takes as long as that takes, and
/// ends early when `watch` says so. Without text: the tokenizer that goes with the checkpoint, or plain
/// bytes. Warnings go to the log. Errors: what text::prepare_dataset and the tokenizer's file give.
kernels::result<prepared_data> prepare_node_data(const node_config& c, const model::architecture& shape,
                                                 const data_places& where, const text::progress& watch);

} // namespace neuroshard
