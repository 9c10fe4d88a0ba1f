#include "actors/identity/secret.hpp"

#include <cstring>
#include <utility>

namespace neuroshard {

void wipe(void* data, size_t bytes) noexcept {
  if (bytes > 0)
    ::explicit_bzero(data, bytes);
}

secret_text::secret_text(std::string_view text) : size_(text.size()) {
  if (size_ == 0)
    return;
  data_ = new char[size_];
  std::memcpy(data_, text.data(), size_);
}

secret_text::secret_text(secret_text&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

secret_text& secret_text::operator=(secret_text&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

secret_text::~secret_text() {
  if (data_ == nullptr)
    return;
  wipe(data_, size_);
  delete[] data_;
}

secret_key::secret_key(secret_key&& other) noexcept : bytes_(other.bytes_) {
  wipe(other.data(), size());
}

secret_key& secret_key::operator=(secret_key&& other) noexcept {
  if (this != &other) {
    bytes_ = other.bytes_;
    wipe(other.data(), size());
  }
  return *this;
}

secret_key::~secret_key() {
  wipe(data(), size());
}

secret_key secret_key::copy() const {
  secret_key made;
  made.bytes_ = bytes_;
  return made;
}

} // namespace neuroshard
