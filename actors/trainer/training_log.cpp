#include "actors/trainer/training_log.hpp"

#include <fmt/core.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <utility>

namespace neuroshard {

namespace {

namespace fs = std::filesystem;

std::string number(std::optional<double> value) {
  return value && std::isfinite(*value) ? fmt::format("{}", *value) : std::string("null");
}

} // namespace

std::string training_log_line(const training_progress& p, int64_t unix_us) {
  return fmt::format(
      "{{\"unix_us\":{},\"step\":{},\"outer_step\":{},\"loss\":{},\"loss_ema\":{},\"validation_loss\":{},"
      "\"learning_rate\":{},\"grad_norm\":{},\"tokens_trained\":{},\"tokens_per_second\":{}}}",
      unix_us, p.inner_step, p.outer_step, number(p.loss), number(p.loss_ema), number(p.validation_loss),
      number(p.learning_rate), number(p.grad_norm), p.tokens_trained, number(p.tokens_per_second));
}

training_log::news training_log::append(const training_progress& progress, int64_t unix_us) {
  if (folder_.empty())
    return news::none;
  const bool wrote_before = std::exchange(writes_, write(training_log_line(progress, unix_us) + '\n'));
  if (wrote_before)
    lost_ = 0;
  if (!writes_)
    ++lost_;
  if (wrote_before == writes_)
    return news::none;
  return writes_ ? news::writes_again : news::cannot_write;
}

bool training_log::write(const std::string& line) const {
  std::error_code error;
  fs::create_directories(folder_, error);
  const fs::path path = fs::path(folder_) / "loss.jsonl";
  if (const auto bytes = fs::file_size(path, error); !error && bytes >= file_bytes_max)
    fs::rename(path, fs::path(folder_) / "loss.1.jsonl", error);
  const auto before = fs::file_size(path, error);
  const bool existed = !error;
  std::ofstream file(path, std::ios::app);
  if (file << line && file.flush())
    return true;
  file.close();
  if (existed) // no part of a line stays, which the next one would be joined to
    fs::resize_file(path, before, error);
  else
    fs::remove(path, error);
  return false;
}

} // namespace neuroshard
