#pragma once

#include "actors/ledger/receipt.hpp"
#include "tests/actors/ledger/record_fixture.hpp"

namespace neuroshard::testing {

/// What `worker` did for `driver` in one generation: `layers` layers on `tokens` positions.
inline receipt work_for(const node_identity& worker, const node_identity& driver, std::string work_id,
                        uint32_t layers, uint64_t tokens) {
  receipt made;
  made.worker_node_id = worker.node_id();
  made.driver_node_id = driver.node_id();
  made.work_id = std::move(work_id);
  made.layer_begin = 2;
  made.layer_end = 2 + layers;
  made.tokens = tokens;
  made.model_version = 7;
  made.started_unix_ms = 1'768'435'200'000;
  made.ended_unix_ms = 1'768'435'230'000;
  made.nonce = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  return made;
}

inline std::string signed_by(const node_identity& worker, const receipt& of) {
  auto blob = make_receipt(worker, of);
  REQUIRE(blob);
  return *blob;
}

inline std::string countersigned_by(const node_identity& driver, const std::string& worker_blob) {
  auto blob = countersign(driver, worker_blob);
  REQUIRE(blob);
  return *blob;
}

} // namespace neuroshard::testing
